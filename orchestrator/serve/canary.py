"""Choice between champion and canary by the key of a request. Pure.

A key always gets the same of the two, on every replica and after every restart, and keeps it when the share
rises. Which keys a canary gets is another draw for each task and each canary, so that no key is always first.
"""

import hashlib

import numpy as np

from orchestrator.serve.engine_api import Image
from orchestrator.store.documents.catalog import CatalogEntry

__all__ = ["choose_version", "key_of_content"]

_SPACE = 1 << 64


def choose_version(task: str, entry: CatalogEntry, key: str | None) -> int:
    """The champion's version or the canary's.

    Args:
        task: Its name.
        entry: The task's in the catalog.
        key: Key of the client; the champion answers requests without one.
    """
    canary = entry.canary
    if canary is None or key is None or _place(task, canary.version, key) >= canary.share:
        return entry.version
    return canary.version


def key_of_content(content: bytes | Image) -> str:
    """Key of a request without one: asked twice about one image, one version answers.

    Args:
        content: The image as it was sent, a file or pixels: views and backbones see it each in another way.
    """
    plain = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    return hashlib.sha256(plain).hexdigest()


def _place(task: str, version: int, key: str) -> float:
    """Where a key stands between 0 and 1. Neither a task's name nor a number holds a line break."""
    digest = hashlib.sha256(f"{task}\n{version}\n{key}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / _SPACE
