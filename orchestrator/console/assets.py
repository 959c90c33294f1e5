"""Static files of the console, at URLs that hold their digest: a browser keeps each for good."""

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, HTTPException, Response

__all__ = ["Asset", "asset_url", "find_assets", "router"]

router = APIRouter(prefix="/static")


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A static file.

    Attributes:
        content: Its bytes.
        digest: Start of their sha256.
        media_type: Media type.
    """

    content: bytes
    digest: str
    media_type: str


@cache
def find_assets() -> dict[str, Asset]:
    """All static files by path."""
    return {path: _read(path, file) for path, file in _walk(files("orchestrator.console") / "static")}


def asset_url(path: str) -> str:
    """URL of a static file.

    Raises:
        KeyError: There is none.
    """
    return f"/static/{find_assets()[path].digest}/{path}"


@router.get("/{digest}/{path:path}")
def get_asset(digest: str, path: str) -> Response:
    """A static file."""
    found = find_assets().get(path)
    if found is None or found.digest != digest:
        raise HTTPException(404, "There is no such file.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found.content, media_type=found.media_type, headers=headers)


def _walk(folder: Traversable, prefix: str = "") -> list[tuple[str, Traversable]]:
    found = []
    for entry in folder.iterdir():
        path = prefix + entry.name
        found += _walk(entry, f"{path}/") if entry.is_dir() else [(path, entry)]
    return found


def _read(path: str, file: Traversable) -> Asset:
    content = file.read_bytes()
    # Not what this machine calls them: browsers insist on these.
    kind = {"js": "text/javascript", "css": "text/css"}.get(path.rpartition(".")[2])
    return Asset(
        content=content,
        digest=hashlib.sha256(content).hexdigest()[:16],
        media_type=kind or mimetypes.guess_type(path)[0] or "text/plain",
    )
