"""Opens the store of objects that a URL or path names."""

import re
from pathlib import Path
from urllib.parse import unquote

from orchestrator.errors import StoreError
from orchestrator.store.objects.protocol import ObjectStore, StoredObject
from ship.redaction import Url

__all__ = ["ObjectStore", "StoredObject", "find_folder", "open_objects"]

# A URL that lost a slash would be a folder in the working folder.
_TORN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


def open_objects(url: str) -> ObjectStore:
    """The store at ``url``. Touches nothing yet.

    Args:
        url: A path or ``file://`` URL, ``s3://bucket[/prefix]`` (boto3: ``AWS_*``, ``AWS_ENDPOINT_URL``),
            or any other URL that fsspec has a driver for.

    Raises:
        StoreError: The URL cannot be understood, or its driver is not installed.
    """
    if not url or "\0" in url:
        raise StoreError(
            f"store {Url(url)!r}: expected a path, or a URL such as s3://bucket/prefix; set SHIP_STORE"
        )
    if (folder := find_folder(url)) is not None:
        # Imported here, each: a local store needs neither boto3 nor fsspec.
        from orchestrator.store.objects.local import LocalObjects

        try:
            store = LocalObjects(folder)
        # A loop of links, and what a file system says of a name that it cannot have.
        except (OSError, RuntimeError) as error:
            raise StoreError(f"store {url!r}: {error}; set SHIP_STORE to another folder") from None
        if store.url.endswith("/"):
            raise StoreError(f"store {url!r}: this is the root of the file system; name a folder in it")
        return store
    if url.startswith("s3://"):
        from orchestrator.store.objects.s3 import S3Objects

        return S3Objects(url)
    from orchestrator.store.objects.fsspec_objects import FsspecObjects

    return FsspecObjects(url)


def find_folder(url: str) -> Path | None:
    """Folder of a local store, which a path or a ``file://`` URL names; None of any other.

    Raises:
        StoreError: The path or URL names no folder, or not clearly.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "file":
        return None
    if separator:
        return _read_file_url(url, rest)
    if _TORN_URL.match(url):
        raise StoreError(
            f"store {url!r}: expected a path, or a URL with '://'; write ./{url} for a folder of that name"
        )
    try:
        return Path(url).expanduser()
    except RuntimeError as error:
        raise StoreError(f"store {url!r}: {error}; write ./{url} for a folder of that name") from None


def _read_file_url(url: str, rest: str) -> Path:
    host, slash, path = rest.partition("/")
    folder = unquote(f"/{path}", errors="surrogateescape")
    if host not in ("", "localhost") or not slash or set("?#") & set(rest) or "\0" in folder:
        raise StoreError(
            f"store {Url(url)}: expected file:///folder, with three slashes before an absolute path, '?' "
            "written as %3F and '#' as %23"
        )
    return Path(folder)
