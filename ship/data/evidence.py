"""Evidence of a remote file's content, from what its backend tells of it without the content being read."""

from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["Evidence", "find_tag"]

Evidence = Literal["content", "etag", "checksum", "version", "time"]
# The surest first; each is told under several names. The order is part of every fingerprint.
_NAMES: tuple[tuple[Evidence, tuple[str, ...]], ...] = (
    ("etag", ("ETag", "etag")),
    ("checksum", ("md5", "md5Hash", "content_md5", "checksum", "crc32c", "Content-MD5", "Digest", "CRC")),
    ("version", ("generation", "VersionId", "version_id")),
    ("time", ("Last-Modified", "LastModified", "last_modified", "updated", "modified", "mtime", "date_time")),
)


def find_tag(info: Mapping[str, Any]) -> tuple[str, Evidence] | None:
    """A tag that changes with the file's content, with its size, and what it rests on; None if nothing does.

    Args:
        info: What a file system of fsspec tells of a file.
    """
    told = ((info[name], kind) for kind, names in _NAMES for name in names if info.get(name))
    return next(((f"{info.get('size')}:{tag}", kind) for tag, kind in told), None)
