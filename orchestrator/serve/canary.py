"""Which version answers while a canary runs. Pure.

A key always gets the same of the two, on every replica and after every restart, and keeps it when the share
rises. Which keys a canary gets is another draw for each task and each canary, so that nobody is always first.
"""

import hashlib

from orchestrator.store.catalog import CatalogEntry

__all__ = ["choose_version"]

_SPACE = 1 << 64


def choose_version(task: str, entry: CatalogEntry, key: str | None, draw: float) -> int:
    """The champion's version or the canary's.

    Args:
        task: Its name.
        entry: The task's in the catalog.
        key: Of whoever asks; None for nobody in particular.
        draw: From 0 to 1 without 1; decides where there is no key.
    """
    canary = entry.canary
    if canary is None:
        return entry.version
    place = draw if key is None else _place(task, canary.version, key)
    return canary.version if place < canary.share else entry.version


def _place(task: str, version: int, key: str) -> float:
    """Where a key stands between 0 and 1. Neither a task's name nor a number holds a line break."""
    digest = hashlib.sha256(f"{task}\n{version}\n{key}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / _SPACE
