"""Append-only files of lines, such as JSON lines. A killed writer or a full disk may tear the last one.

A writer begins on a fresh line, so that a torn one never swallows the record after it. Readers skip it.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from orchestrator.private_files import open_like_folder

__all__ = ["append_lines", "is_torn"]


def is_torn(path: Path) -> bool:
    """Whether a file has a last line without an end."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False


def append_lines(path: Path, lines: Iterable[str], *, is_synced: bool = False) -> None:
    """Append lines, on a fresh one.

    Args:
        path: The file; made if it is not there, with no more permissions than its folder.
        lines: Lines without their ends.
        is_synced: Whether they are on disk when this returns.

    Raises:
        OSError: The disk is full or fails; a part may have been written.
    """
    content = b"".join(f"{line}\n".encode() for line in lines)
    start = b"\n" if is_torn(path) else b""
    with open(path, "ab", opener=open_like_folder) as file:
        file.write(start + content)
        if is_synced:
            file.flush()
            os.fsync(file.fileno())
