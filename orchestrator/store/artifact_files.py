"""Integrity of an artifact's files: ``prompt.json`` names size and sha256 of all others.

The sha256 of ``prompt.json`` is the digest of the artifact. The store reads nothing else of it, and needs no
torch.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from orchestrator.errors import StoreError
from orchestrator.names import is_digest
from orchestrator.store.documents.document import Digest, Document
from ship.artifact.card import CARD

__all__ = [
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "FileStamp",
    "check_content",
    "check_digest",
    "check_files",
    "read_stamps",
]

MAX_FILE_BYTES = 64 << 20
MAX_FILES = 16
_FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class FileStamp(Document):
    """Size and digest of one file."""

    sha256: Digest
    num_bytes: int = Field(alias="bytes", ge=0, le=MAX_FILE_BYTES)

    def describes(self, data: bytes) -> bool:
        """Whether a file's content has this size and this digest."""
        return len(data) == self.num_bytes and _sha256(data) == self.sha256


class _Card(Document, extra="ignore"):
    files: dict[_FileName, FileStamp] = Field(max_length=MAX_FILES)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if CARD in self.files:
            raise ValueError(f"files: expected no {CARD}, which cannot name its own digest")
        return self


def check_digest(digest: str) -> str:
    """Return ``digest`` unchanged.

    Raises:
        StoreError: It is no digest.
    """
    if not is_digest(digest):
        raise StoreError(f"digest {digest[:80]!r}: expected 64 hex digits")
    return digest


def check_files(files: Mapping[str, bytes], *, but: Collection[str] = ()) -> str:
    """The digest of an artifact's files, after checking that they agree.

    Args:
        files: Name to content.
        but: Names of files that the card may describe and that are not among them.

    Raises:
        StoreError: A file is missing, unknown, too large, or not what the card says.
    """
    if CARD not in files:
        raise StoreError(f"artifact: {CARD} is missing; found {', '.join(sorted(files)) or 'no files'}")
    if len(files[CARD]) > MAX_FILE_BYTES:
        raise StoreError(f"artifact: {CARD}: {len(files[CARD])} bytes, expected at most {MAX_FILE_BYTES}")
    wanted = read_stamps(files[CARD], "artifact")
    others = {name: data for name, data in files.items() if name != CARD}
    right = {name for name, data in others.items() if name in wanted and wanted[name].describes(data)}
    if wrong := sorted(((wanted.keys() - set(but)) | others.keys()) - right):
        raise StoreError([f"artifact: {name}: is not the file that {CARD} describes" for name in wrong])
    return _sha256(files[CARD])


def check_content(data: bytes, stamp: FileStamp, where: str) -> None:
    """Compare a file's content with its stamp.

    Raises:
        StoreError: They differ.
    """
    if not stamp.describes(data):
        raise StoreError(
            f"{where}: expected {stamp.num_bytes} bytes with sha256 {stamp.sha256}, found {len(data)} with "
            f"{_sha256(data)}; it was damaged or changed. Restore it from a copy, or delete the artifact's "
            "folder and its marker under published/ and tune the task again"
        )


def read_stamps(card: bytes, where: str) -> dict[str, FileStamp]:
    """Stamps of the other files in a card, by file name.

    Raises:
        StoreError: The card is not JSON, or describes files that no artifact can have.
    """
    return _Card.read(card, f"{where}/{CARD}", "delete the artifact's folder and tune the task again").files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
