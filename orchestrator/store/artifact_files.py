"""The files of an artifact, as far as a store cares: ``prompt.json`` names size and sha256 of all others.

The sha256 of ``prompt.json`` is the digest of the artifact. What is inside is none of a store's business, so
that reading one needs no torch.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import StoreError
from orchestrator.names import is_digest

__all__ = ["CARD", "MAX_FILES", "MAX_FILE_BYTES", "FileStamp", "check_content", "check_files", "read_stamps"]

CARD = "prompt.json"
MAX_FILE_BYTES = 64 << 20
MAX_FILES = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class FileStamp:
    """What a card says of one file."""

    sha256: str
    num_bytes: int


def check_files(files: Mapping[str, bytes]) -> str:
    """The digest of an artifact's files, after checking that they agree.

    Raises:
        StoreError: A file is missing, unknown, too large, or not what the card says.
    """
    if CARD not in files:
        raise StoreError(f"artifact: {CARD} is missing; found {', '.join(sorted(files)) or 'no files'}")
    if len(files[CARD]) > MAX_FILE_BYTES:
        raise StoreError(f"artifact: {CARD}: {len(files[CARD])} bytes, expected at most {MAX_FILE_BYTES}")
    wanted = read_stamps(files[CARD], "artifact")
    found = {
        name: FileStamp(sha256=_sha256(data), num_bytes=len(data))
        for name, data in files.items()
        if name != CARD
    }
    if wrong := sorted(name for name in wanted.keys() | found if wanted.get(name) != found.get(name)):
        raise StoreError([f"artifact: {name}: is not the file that {CARD} describes" for name in wrong])
    return _sha256(files[CARD])


def check_content(data: bytes, stamp: FileStamp, where: str) -> None:
    """Compare what was read with what it has to be.

    Raises:
        StoreError: It is something else.
    """
    if len(data) != stamp.num_bytes or _sha256(data) != stamp.sha256:
        raise StoreError(
            f"{where}: expected {stamp.num_bytes} bytes with sha256 {stamp.sha256}, found {len(data)} with "
            f"{_sha256(data)}; it was damaged or changed. Restore it from a copy, or delete the artifact's "
            "folder and its marker under published/ and tune the task again"
        )


def read_stamps(card: bytes, where: str) -> dict[str, FileStamp]:
    """What a card says of the other files, by name.

    Raises:
        StoreError: The card is not JSON, or describes files that no artifact can have.
    """
    try:
        described = json.loads(card)["files"]
        stamps = {
            name: FileStamp(sha256=entry["sha256"], num_bytes=entry["bytes"])
            for name, entry in described.items()
        }
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{where}/{CARD}: expected JSON with `files`, name to sha256 and bytes: {error!r}"
        ) from error
    problems = [
        f"{where}/{CARD}: files: {str(name)[:80]!r}: expected a plain name, a sha256 and at most "
        f"{MAX_FILE_BYTES} bytes, found {str(stamp)[:160]}"
        for name, stamp in stamps.items()
        if not _is_sound(name, stamp)
    ]
    if len(stamps) > MAX_FILES:
        problems.append(f"{where}/{CARD}: files: {len(stamps)}, expected at most {MAX_FILES}")
    if problems:
        raise StoreError(problems)
    return stamps


def _is_sound(name: str, stamp: FileStamp) -> bool:
    if not _NAME.fullmatch(name) or name == CARD or not is_digest(stamp.sha256):
        return False
    return type(stamp.num_bytes) is int and 0 <= stamp.num_bytes <= MAX_FILE_BYTES


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
