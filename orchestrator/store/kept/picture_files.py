"""Reviewed pictures as files of a folder, named by their content; each is written whole or not at all."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ObjectMissing
from orchestrator.names import check_task_name
from orchestrator.private_files import replace_like_folder
from orchestrator.store.kept.pictures import KeptPictures

__all__ = ["Exported", "fetch_picture", "name_picture", "review_folder", "write_whole"]

PICTURES = "pictures"
_SUFFIXES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"BM": "bmp", b"II*\0": "tif"}
_OTHER = "tif"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        path: The table, or the JSON.
        num_pictures: Pictures in it.
        num_known: Pictures that were left out as the data have them already.
        num_earlier: Pictures in it that an earlier table had.
        num_taken_back: Pictures of earlier tables that were left out, as their label is settled no longer.
    """

    path: Path
    num_pictures: int
    num_known: int = 0
    num_earlier: int = 0
    num_taken_back: int = 0


def review_folder(home: Path, task: str) -> Path:
    """Where pictures of a task are written, unless another folder is named."""
    return home / "review" / check_task_name(task)


def name_picture(picture: str, content: bytes) -> str:
    """Path of a picture below the folder.

    Args:
        picture: sha256 of the file.
        content: The file, whose first bytes tell the suffix.
    """
    suffix = next((end for start, end in _SUFFIXES.items() if content.startswith(start)), _OTHER)
    return f"{PICTURES}/{picture}.{suffix}"


def fetch_picture(kept: KeptPictures, task: str, picture: str) -> bytes | None:
    """The file of a kept picture; None if it is gone meanwhile.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        return kept.fetch(task, picture)
    except ObjectMissing:
        return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, with the folders above it, as open as its folder is.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_like_folder(path, content)
