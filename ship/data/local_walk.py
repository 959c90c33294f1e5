"""Everything below a local folder, through symbolic links.

fsspec's own walk passes over links, which data tools use for files and folders alike, and over folders that
may not be read; and it hands on pipes and devices, which a reader would wait for without end.
"""

import os
from collections.abc import Callable

__all__ = ["walk_local"]

_Identity = tuple[int, int]


def walk_local(top: str, enters: Callable[[str], bool]) -> tuple[list[str], list[str], list[str]]:
    """Folders, files and everything else below ``top``, relative to it, with ``/``.

    Args:
        top: The folder.
        enters: Whether a folder of that name is entered; it is listed in any case.

    Returns:
        Folders, files with links to nothing, which no reader will find, and what is neither: pipes, sockets
        and devices.

    Raises:
        OSError: A folder cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    others: list[str] = []
    waiting: list[tuple[str, str, frozenset[_Identity]]] = [(top, "", frozenset())]
    while waiting:
        parent, prefix, ancestors = waiting.pop()
        status = os.stat(parent)
        itself = (status.st_dev, status.st_ino)
        if itself in ancestors:
            # A link back to a folder that we are in would never end.
            continue
        with os.scandir(parent) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir():
                    folders.append(path)
                    if enters(entry.name):
                        waiting.append((entry.path, f"{path}/", ancestors | {itself}))
                elif entry.is_file() or not os.path.exists(entry.path):
                    files.append(path)
                else:
                    others.append(path)
    return folders, files, others
