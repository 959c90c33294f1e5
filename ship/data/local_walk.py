"""Everything below a local folder, through symbolic links.

fsspec's own walk passes over links, which data tools use for files and folders alike, and over folders that
may not be read.
"""

import os

__all__ = ["walk_local"]


def walk_local(top: str) -> tuple[list[str], list[str]]:
    """Folders and files below ``top``, relative to it, with ``/``; hidden folders are not entered.

    Raises:
        OSError: A folder cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    ancestors: dict[str, frozenset[tuple[int, int]]] = {}
    start = os.path.join(top, "")
    for parent, child_folders, child_files in os.walk(top, followlinks=True, onerror=_raise):
        status = os.stat(parent)
        itself = (status.st_dev, status.st_ino)
        above = ancestors.get(os.path.dirname(parent), frozenset())
        if itself in above:
            # A link back to a folder that we are in would never end.
            child_folders.clear()
            continue
        ancestors[parent] = above | {itself}
        prefix = "" if parent == top else os.path.join(parent, "").removeprefix(start).replace(os.sep, "/")
        child_folders[:] = [name for name in child_folders if not name.startswith(".")]
        folders += [prefix + name for name in child_folders]
        files += [prefix + name for name in child_files]
    return folders, files


def _raise(error: OSError) -> None:
    raise error
