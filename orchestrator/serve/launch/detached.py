"""Record of the endpoint that a home has running on a local Ray of its own, for `ship serve --stop`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.detached import DetachedRay
from orchestrator.errors import ServeError
from orchestrator.private_files import make_private_folder, replace_private
from orchestrator.settings import Settings

__all__ = ["DetachedEndpoint", "find_detached", "forget_detached", "note_detached"]

_FIELDS = ("name", "url", "address", "folder")


@dataclass(frozen=True, kw_only=True)
class DetachedEndpoint:
    """An endpoint whose `ship serve` has returned.

    Attributes:
        name: Name of the endpoint.
        url: For clients on this machine.
        ray: The Ray that it runs on, and nothing else.
    """

    name: str
    url: str
    ray: DetachedRay


def find_detached(settings: Settings) -> DetachedEndpoint | None:
    """The endpoint that was noted, which may have ended since.

    Raises:
        ServeError: The record is damaged.
    """
    path = _path(settings)
    try:
        found = json.loads(path.read_text())
        values: dict[str, Any] = {name: found[name] for name in _FIELDS}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ServeError(f"{path} cannot be read: {error}; see `ray status`, and delete it") from error
    if not all(isinstance(value, str) for value in values.values()):
        raise ServeError(f"{path}: expected texts, got {values}; see `ray status`, and delete it")
    ray = DetachedRay(address=values["address"], folder=Path(values["folder"]))
    return DetachedEndpoint(name=values["name"], url=values["url"], ray=ray)


def note_detached(settings: Settings, endpoint: DetachedEndpoint) -> None:
    """Note it, in place of any other.

    Raises:
        OSError: It cannot be written.
    """
    values = (endpoint.name, endpoint.url, endpoint.ray.address, str(endpoint.ray.folder))
    make_private_folder(settings.home)
    replace_private(_path(settings), json.dumps(dict(zip(_FIELDS, values, strict=True))).encode())


def forget_detached(settings: Settings) -> None:
    """Remove the note."""
    _path(settings).unlink(missing_ok=True)


def _path(settings: Settings) -> Path:
    return settings.home / "endpoint.json"
