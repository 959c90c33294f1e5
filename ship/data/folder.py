"""Access to files: local ones, and all that fsspec reaches. The rest of the package goes through here.

It knows folders, files and bytes; nothing of classes, splits or images. Every failure of a backend leaves it
as a ``DataError``, so that callers need not know the backends.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from glob import has_magic
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ship.data.local_walk import walk_local
from ship.errors import DataError, ShipError
from ship.redaction import Url

__all__ = [
    "Folder",
    "FolderTree",
    "find_folders",
    "open_folder",
    "open_parent",
    "path_exists",
    "read_small_file",
]

_CONTENT_TAGS = ("ETag", "etag", "md5", "md5Hash", "content_md5", "checksum", "crc32c", "generation")


@dataclass(frozen=True, slots=True)
class FolderTree:
    """Files and folders below a folder, as paths relative to it, without hidden ones."""

    folders: frozenset[str]
    files: frozenset[str]

    def children(self, folder: str = "") -> set[str]:
        """Names of the folders directly in ``folder``."""
        prefix = f"{folder}/" if folder else ""
        return {
            path[len(prefix) :].split("/")[0]
            for path in self.folders
            if path.startswith(prefix) and path != folder
        }

    def files_below(self, folder: str) -> list[str]:
        """All files in ``folder`` and below, sorted."""
        return sorted(path for path in self.files if path.startswith(f"{folder}/"))


class Folder:
    """A folder that is read from.

    Attributes:
        is_local: Whether its files are on this machine, so that reading them all is cheap.
    """

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str, url: Url) -> None:
        self._filesystem, self._url = filesystem, url
        self._root = root.rstrip("/")
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def __str__(self) -> str:
        return self.locate("")

    def locate(self, path: str) -> str:
        """The full path or URL of a file, for messages: without secrets."""
        full = self._join(path)
        return full if self.is_local else self._url.redact(self._filesystem.unstrip_protocol(full))

    def read(self, path: str) -> bytes:
        """The bytes of one file.

        Raises:
            DataError: It is missing or cannot be read.
        """
        with self._errors(path):
            return bytes(self._filesystem.cat_file(self._join(path)))

    def is_file(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._errors(path):
            return bool(self._filesystem.isfile(self._join(path)))

    def is_folder(self) -> bool:
        """Whether the folder itself is there."""
        with self._errors():
            return bool(self._filesystem.isdir(self._root or "/"))

    def tree(self) -> FolderTree:
        """Everything below."""
        with self._errors():
            folders, files = walk_local(self._root or "/") if self.is_local else self._find_remote()
        return FolderTree(
            folders=frozenset(path for path in folders if path and not _is_hidden(path)),
            files=frozenset(path for path in files if path and not _is_hidden(path)),
        )

    def content_tags(self, paths: list[str]) -> dict[str, str]:
        """Content tags of remote files: size and checksum, ETag or the like.

        Returns:
            A tag for each path that is there; missing files are left out.
        """
        base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        with self._errors():
            found = self._filesystem.find(self._join(base), detail=True)
            tags = {}
            for path in paths:
                full = self._join(path)
                info = found.get(full) or self._info(full)
                if info is not None:
                    tags[path] = self._content_tag(full, info)
        return tags

    def relative(self, path: str) -> str | None:
        """``path`` relative to this folder, normalised; None if it leads out of it."""
        if "://" in path or path.startswith("/"):
            roots = {f"{self._root}/", f"{self._filesystem.unstrip_protocol(self._root)}/"}
            inside = [path[len(root) :] for root in roots if path.startswith(root)]
            if not inside:
                return None
            path = inside[0]
        parts = [part for part in path.split("/") if part not in ("", ".")]
        return None if ".." in parts or not parts else "/".join(parts)

    def _errors(self, path: str = "") -> AbstractContextManager[None]:
        return _backend_errors(self._url, self.locate(path))

    def _join(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/") or "/"

    def _find_remote(self) -> tuple[list[str], list[str]]:
        found = self._filesystem.find(self._root, withdirs=True, detail=True)
        start = len(self._root) + 1
        folders = {path[start:] for path, info in found.items() if info["type"] == "directory"}
        files = [path[start:] for path, info in found.items() if info["type"] == "file"]
        # Object stores have no folders but those that their keys imply.
        for path in files:
            parts = path.split("/")[:-1]
            folders.update("/".join(parts[: count + 1]) for count in range(len(parts)))
        return list(folders), files

    def _info(self, full: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._filesystem.info(full)
        except FileNotFoundError:
            return None
        return info

    def _content_tag(self, full: str, info: dict[str, Any]) -> str:
        tag = next((info[name] for name in _CONTENT_TAGS if info.get(name)), None)
        return f"{info.get('size')}:{tag if tag is not None else self._filesystem.ukey(full)}"


def open_folder(path: str) -> Folder:
    """Open a folder by path or fsspec URL; whether it is there is not checked.

    Raises:
        DataError: No backend for such a URL.
    """
    url = Url(path)
    with _backend_errors(url):
        filesystem, root = url_to_fs(url.reveal())
        # Backends remember listings for as long as the process lives; data may have changed since.
        filesystem.invalidate_cache()
    return Folder(filesystem, root, url)


def open_parent(path: str) -> tuple[Folder, str]:
    """Open the folder that a file lies in.

    Returns:
        The folder, and the file's name in it.

    Raises:
        DataError: No backend for such a URL.
    """
    url = Url(path)
    with _backend_errors(url):
        filesystem, root = url_to_fs(url.reveal())
        filesystem.invalidate_cache()
    parent, _, name = root.rpartition("/")
    return Folder(filesystem, parent, url), name


def path_exists(path: str) -> bool:
    """Whether there is a file or folder at this path or URL.

    Raises:
        DataError: The backend cannot tell.
    """
    url = Url(path)
    with _backend_errors(url):
        filesystem, root = url_to_fs(url.reveal())
        return bool(filesystem.exists(root))


def find_folders(pattern: str) -> list[str]:
    """Folders that match a glob pattern (path or URL), sorted; hidden ones are left out.

    A pattern without a wildcard is a folder, and means the folders in it. A bucket is asked for one listing a
    level of the pattern, not for each folder.

    Raises:
        DataError: The backend cannot list.
    """
    url = Url(pattern)
    with _backend_errors(url):
        filesystem, root = url_to_fs(url.reveal())
        # Backends remember listings for as long as the process lives; folders may have come since.
        filesystem.invalidate_cache()
        found = filesystem.glob(root if has_magic(root) else f"{root.rstrip('/')}/*", detail=True)
        is_local = isinstance(filesystem, LocalFileSystem)
        # A link to a folder is one too, which only a second look tells; locally that costs next to nothing.
        paths = [
            path.rstrip("/")
            for path, info in found.items()
            if (filesystem.isdir(path) if is_local else info["type"] == "directory")
        ]
        folders = sorted(path for path in paths if not path.split("/")[-1].startswith("."))
        return folders if is_local else [str(filesystem.unstrip_protocol(path)) for path in folders]


def read_small_file(path: str, *, max_bytes: int) -> bytes:
    """The bytes of a file that is expected to be small.

    Raises:
        DataError: It is missing, no file, larger than ``max_bytes``, or cannot be read.
    """
    url = Url(path)
    with _backend_errors(url):
        filesystem, root = url_to_fs(url.reveal())
        info = filesystem.info(root)
        if info["type"] != "file":
            raise DataError(f"{url}: expected a file, found a {info['type']}")
        if (info.get("size") or 0) > max_bytes:
            raise DataError(f"{url}: expected at most {max_bytes} bytes, found {info['size']}")
        return bytes(filesystem.cat_file(root))


def _is_hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path


@contextmanager
def _backend_errors(url: Url, place: str | None = None) -> Iterator[None]:
    """Translate errors of a backend that was opened by ``url``, at a place below it.

    The original error is left out of the new one's traceback, which may be logged, for it may show the
    password.
    """
    try:
        yield
    except ShipError:
        raise
    except FileNotFoundError:
        problem = "no such file or folder"
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno in errno.errorcode else str(error)
        problem = reason or type(error).__name__
    # A boundary: each fsspec backend raises errors of its own library (credentials, endpoints, protocols),
    # which ship must not import to name them.
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        return
    raise DataError(f"{place or url}: {url.redact(problem)}") from None
