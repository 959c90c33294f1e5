"""Folders and files for their owner alone, whatever the umask of the process.

A home is such a folder. A file elsewhere gets no more permissions than the folder that it is made in, so that
one that is shared on purpose stays shared.
"""

import logging
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = [
    "make_folder_like",
    "make_private_folder",
    "make_private_tree",
    "open_like_folder",
    "open_private",
    "replace_like_folder",
    "replace_private",
]

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_log = logging.getLogger(__name__)


def make_private_folder(folder: Path) -> None:
    """Make a folder with those above it that are missing, each for its owner alone.

    One that is there already is closed to others, if it is this user's own, and not shared as ``/tmp`` is.

    Raises:
        OSError: It cannot be made.
    """
    for missing in _missing(folder):
        # Another process may make it at the same time.
        with suppress(FileExistsError):
            missing.mkdir(_FOLDER_MODE)
    found = folder.stat()
    is_shared = found.st_mode & stat.S_ISVTX or found.st_uid != os.geteuid()
    if stat.S_IMODE(found.st_mode) & 0o077 and not is_shared:
        _close(folder, _FOLDER_MODE)


def make_folder_like(root: Path, folder: Path) -> None:
    """Make a folder below ``root`` with the permissions that ``root`` has, which is made private if missing.

    Raises:
        OSError: It cannot be made.
    """
    if folder.is_dir():
        return
    if not root.is_dir():
        make_private_folder(root)
    mode = stat.S_IMODE(root.stat().st_mode) & 0o777
    for missing in _missing(folder):
        with suppress(FileExistsError):
            missing.mkdir(mode)


def make_private_tree(folder: Path) -> None:
    """Close a folder, and all that is in it, to all but its owner."""
    for place, _, names in os.walk(folder):
        _close(Path(place), _FOLDER_MODE)
        for name in names:
            if not (path := Path(place, name)).is_symlink():
                _close(path, _FILE_MODE)


def open_private(path: str, flags: int) -> int:
    """Opener, as ``open`` takes one, that makes a file for its owner alone."""
    return os.open(path, flags, _FILE_MODE)


def replace_private(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all, for its owner alone.

    Raises:
        OSError: It cannot be written.
    """
    _replace(path, content, open_private)


def replace_like_folder(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all, with no more permissions than the folder that it lies in.

    Raises:
        OSError: It cannot be written.
    """
    _replace(path, content, open_like_folder)


def _replace(path: Path, content: bytes, opener: Callable[[str, int], int]) -> None:
    # Its own of each writer: threads, and containers on a shared folder, have one process id.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb", opener=opener) as file:
            file.write(content)
            file.flush()
            # Else a crash of the machine may leave the name with nothing in it.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_like_folder(path: str, flags: int) -> int:
    """Opener that makes a file with no more permissions than the folder that it lies in."""
    mode = stat.S_IMODE(os.stat(os.path.dirname(path) or ".").st_mode)
    return os.open(path, flags, mode & 0o666)


def _close(path: Path, mode: int) -> None:
    """Set permissions, where the file system has any: a share of SMB has its own."""
    try:
        path.chmod(mode)
    except OSError as error:
        _log.warning("%s cannot be closed to other users: %s", path, error)


def _missing(folder: Path) -> Iterator[Path]:
    """The folders that are missing on the way to one, from the top."""
    yield from reversed([place for place in (folder, *folder.parents) if not place.exists()])
