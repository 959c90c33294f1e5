"""Joining and cutting of paths below a root: text in, text out; no path is a pattern, none is cut by length.

Paths have ``/``. A root is a local folder, a key of a bucket, or nothing at all, as in an archive.
"""

import re

__all__ = ["below", "common_parent", "is_pattern", "join", "normalise"]

_MAGIC = re.compile(r"[*?[]")


def join(root: str, path: str) -> str:
    """The full path of what lies at ``path`` below the root; of the root itself for an empty path."""
    if not path:
        return root or "/"
    return f"{root}/{path}" if root and not root.endswith("/") else root + path


def below(root: str, full: str) -> str | None:
    """A full path relative to the root; None if it does not lie below it, and is not the root."""
    start = root.rstrip("/")
    if not start:
        return full.lstrip("/")
    if full.rstrip("/") == start:
        return ""
    return full[len(start) + 1 :] if full.startswith(f"{start}/") else None


def normalise(path: str) -> str | None:
    """A relative path without ``.``, ``..`` and empty parts; None if it leads out, or nowhere."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) or None


def common_parent(paths: list[str]) -> str:
    """The deepest folder that all paths lie in, which end in a file's name."""
    folders = [path.split("/")[:-1] for path in paths]
    shared = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return "/".join(folders[0][:shared]) if folders else ""


def is_pattern(path: str) -> bool:
    """Whether a path has a wildcard: ``*``, ``?`` or ``[...]``."""
    return _MAGIC.search(path) is not None
