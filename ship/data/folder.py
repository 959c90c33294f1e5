"""Access to files: local ones, and all that fsspec reaches. The rest of the package goes through here.

It knows folders, files and bytes; nothing of classes, splits or images. Every failure of a backend leaves it
as a ``DataError``, so that callers need not know the backends.
"""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ship.data.evidence import Evidence, find_tag
from ship.data.folder_tree import FolderTree, is_system
from ship.data.local_walk import walk_local
from ship.data.paths import below, common_parent, is_pattern, join, normalise
from ship.errors import DataError, ShipError
from ship.redaction import Url

__all__ = [
    "Folder",
    "find_folders",
    "open_folder",
    "open_parent",
    "path_exists",
    "read_small_file",
]


class Folder:
    """A folder that is read from.

    Attributes:
        is_local: Whether its files are on this machine, so that reading them all is cheap.
    """

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str, url: Url) -> None:
        self._filesystem, self._url = filesystem, url
        self._root = root.rstrip("/")
        # Full paths that are written in another way than joined ones, such as `./a/b.png` in an archive.
        self._odd_paths: dict[str, str] = {}
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def __str__(self) -> str:
        return self.locate("")

    def locate(self, path: str) -> str:
        """The full path or URL of a file, for messages: without secrets."""
        full = self._join(path)
        return full if self.is_local else self._url.redact(_unstrip(self._filesystem, self._url, full))

    def read(self, path: str) -> bytes:
        """The bytes of one file.

        Raises:
            DataError: It is missing or cannot be read.
        """
        with self._errors(path):
            return bytes(self._filesystem.cat_file(self._regular(path)))

    def read_head(self, path: str, num_bytes: int) -> bytes:
        """The first bytes of a file.

        Raises:
            DataError: It is missing or cannot be read.
        """
        with self._errors(path):
            return bytes(self._filesystem.cat_file(self._join(path), start=0, end=num_bytes))

    def read_bounded(self, path: str, max_bytes: int) -> bytes:
        """The bytes of one file that is expected not to be larger.

        Raises:
            DataError: It is missing, larger, or cannot be read.
        """
        with self._errors(path):
            full = self._regular(path)
            content = bytes(self._filesystem.cat_file(full, start=0, end=max_bytes + 1))
            if len(content) > max_bytes:
                raise DataError(f"{self.locate(path)}: expected at most {max_bytes} bytes, found more")
            return content

    def is_file(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._errors(path):
            return bool(self._filesystem.isfile(self._join(path)))

    def is_folder(self) -> bool:
        """Whether the folder itself is there."""
        with self._errors():
            return bool(self._filesystem.isdir(self._root or "/"))

    def tree(self) -> FolderTree:
        """Everything below, sorted by what it is."""
        with self._errors():
            folders, files, others = (
                walk_local(self._root or "/", lambda name: not is_system(name))
                if self.is_local
                else (*self._find_remote(), [])
            )
        return FolderTree.of(folders, files, others)

    def graft(self, prefix: str, other: "Folder", paths: Iterable[str]) -> None:
        """Give files of another folder a place below ``prefix`` in this one.

        Args:
            prefix: Folder that they seem to lie in.
            other: Where they are.
            paths: Their paths there.

        Raises:
            DataError: It lies on another file system.
        """
        if other._filesystem != self._filesystem:
            raise DataError(f"{other}: expected a folder on the file system of {self}; copy it there")
        self._odd_paths |= {f"{prefix}/{path}": other._join(path) for path in paths}

    def content_tags(self, paths: list[str]) -> tuple[dict[str, str], Counter[Evidence]]:
        """Content tags of remote files: size with a checksum, ETag or time of change, else sha256.

        A file of which the backend tells nothing that would change with its content is read.

        Returns:
            A tag for each path that is there, missing files are left out; and on what the tags rest.
        """
        tags: dict[str, str] = {}
        evidence: Counter[Evidence] = Counter()
        with self._errors():
            found = self._filesystem.find(self._join(common_parent(paths)), detail=True) if paths else {}
            for path in paths:
                full = self._join(path)
                info = found.get(full) or self._info(full)
                if info is not None and find_tag(info) is None:
                    # Some list without what they tell of a single file.
                    info = self._info(full)
                if info is not None:
                    tags[path], kind = self._content_tag(full, info)
                    evidence[kind] += 1
        return tags, evidence

    def relative(self, path: str, start: "Folder | None" = None) -> str | None:
        """``path`` relative to this folder, normalised; None if it does not lie below it.

        Args:
            path: A full path or URL, or a relative one.
            start: Folder that a relative path may be relative to, too, if it leads out of this one.
        """
        if not _is_full(path):
            inside = normalise(path)
            if inside is not None or start is None:
                return inside
            path = start.full(path)
        bare = self._strip(path)
        inside = None if bare is None else below(self._root, bare)
        return normalise(inside) if inside else None

    def full(self, path: str) -> str:
        """The full path of a relative one, ``..`` resolved."""
        found = normalise(join(self._root, path))
        return ("/" if self._root.startswith("/") else "") + (found or "")

    def root_above(self, path: str) -> str:
        """The deepest folder, for messages, that both this folder and a path below or beside it lie in."""
        bare = self._strip(path) if _is_full(path) else self.full(path)
        if bare is None:
            # It lies on another file system.
            return path.rpartition("/")[0]
        parent = common_parent([join(self._root, "file"), bare]) or "/"
        return parent if self.is_local else self._url.redact(_unstrip(self._filesystem, self._url, parent))

    def _strip(self, path: str) -> str | None:
        """A full path as the file system has it; None for a URL of another one."""
        protocol, is_url, _ = path.partition("://")
        if not is_url:
            return path
        own = self._filesystem.protocol
        is_own = protocol in ((own,) if isinstance(own, str) else own)
        return str(self._filesystem._strip_protocol(path)) if is_own else None

    def _errors(self, path: str = "") -> AbstractContextManager[None]:
        return _backend_errors(self._url, self.locate(path))

    def _regular(self, path: str) -> str:
        """The full path of a file that may be read; a pipe or a device would be waited for without end."""
        full = self._join(path)
        if self.is_local and not os.path.isfile(full):
            os.stat(full)
            raise DataError(f"{self.locate(path)}: expected a regular file")
        return full

    def _join(self, path: str) -> str:
        return self._odd_paths.get(path) or join(self._root, path)

    def _find_remote(self) -> tuple[list[str], list[str]]:
        found = self._filesystem.find(self._root, withdirs=True, detail=True)
        kinds = {}
        for full, info in found.items():
            path = normalise(below(self._root, full) or "")
            if path is not None:
                kinds[path] = info["type"]
                if join(self._root, path) != full:
                    self._odd_paths[path] = full
        folders = {path for path, kind in kinds.items() if kind == "directory"}
        files = [path for path, kind in kinds.items() if kind == "file"]
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

    def _content_tag(self, full: str, info: dict[str, Any]) -> tuple[str, Evidence]:
        found = find_tag(info)
        return found or (hashlib.sha256(self._filesystem.cat_file(full)).hexdigest(), "content")


def open_folder(path: str) -> Folder:
    """Open a folder by path or fsspec URL; whether it is there is not checked.

    Raises:
        DataError: No backend for such a URL.
    """
    url = Url(path)
    with _backend_errors(url):
        filesystem, root = _open(url)
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
        filesystem, root = _open(url)
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
        filesystem, root = _open(url)
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
        filesystem, root = _open(url)
        # Backends remember listings for as long as the process lives; folders may have come since.
        filesystem.invalidate_cache()
        is_local = isinstance(filesystem, LocalFileSystem)
        # A folder on this disk may well have a bracket in its name.
        if is_pattern(root) and not (is_local and filesystem.isdir(root)):
            found = filesystem.glob(root, detail=True)
        else:
            found = {info["name"]: info for info in _list(filesystem, root)}
        # A link to a folder is one too, which only a second look tells; locally that costs next to nothing.
        paths = [
            path.rstrip("/")
            for path, info in found.items()
            if (filesystem.isdir(path) if is_local else info["type"] == "directory")
        ]
        folders = sorted(path for path in paths if not path.split("/")[-1].startswith("."))
        return folders if is_local else [_unstrip(filesystem, url, path) for path in folders]


def read_small_file(path: str, *, max_bytes: int) -> bytes:
    """The bytes of a file that is expected to be small.

    Raises:
        DataError: It is missing, no file, larger than ``max_bytes``, or cannot be read.
    """
    url = Url(path)
    with _backend_errors(url):
        filesystem, root = _open(url)
        info = filesystem.info(root)
        if info["type"] != "file":
            raise DataError(f"{url}: expected a file, found a {info['type']}")
        if (info.get("size") or 0) > max_bytes:
            raise DataError(f"{url}: expected at most {max_bytes} bytes, found {info['size']}")
        return bytes(filesystem.cat_file(root))


def _open(url: Url) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system and its path: a local path is taken as it is, whatever ``::`` or ``#`` it has."""
    text = url.reveal()
    if "://" not in text:
        return LocalFileSystem(), LocalFileSystem._strip_protocol(text)
    filesystem, root = url_to_fs(text)
    return filesystem, str(root)


def _list(filesystem: fsspec.AbstractFileSystem, folder: str) -> list[dict[str, Any]]:
    try:
        return list(filesystem.ls(folder, detail=True))
    except FileNotFoundError:
        return []


def _unstrip(filesystem: fsspec.AbstractFileSystem, url: Url, path: str) -> str:
    """The URL of a path, with the archive that it is in."""
    _, chain, inside = url.reveal().partition("::")
    return f"{filesystem.unstrip_protocol(path)}{chain}{inside}"


def _is_full(path: str) -> bool:
    return path.startswith("/") or "://" in path


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
