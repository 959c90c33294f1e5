"""Opens the store of objects that a URL or path names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import StoreError
from orchestrator.store.objects.protocol import ObjectStore, StoredObject
from ship.redaction import Url

__all__ = ["ObjectStore", "StoredObject", "find_folder", "open_objects"]


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

        return LocalObjects(folder)
    if url.startswith("s3://"):
        from orchestrator.store.objects.s3 import S3Objects

        return S3Objects(url)
    from orchestrator.store.objects.fsspec_objects import FsspecObjects

    return FsspecObjects(url)


def find_folder(url: str) -> Path | None:
    """Folder of a local store, which a path or a ``file://`` URL names; None of any other."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme != "file":
        return None
    return Path(unquote(urlsplit(url).path) if separator else url).expanduser()
