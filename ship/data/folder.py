"""Access to files: local ones, and all that fsspec reaches. The rest of the package goes through here.

It knows folders, files and bytes; nothing of classes, splits or images. Every failure of a backend leaves it
as a ``DataError``, so that callers need not know the backends.
"""

import errno
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ship.data.local_walk import walk_local
from ship.data.passed_over import PassedOver, pass_over
from ship.data.paths import below, common_parent, is_pattern, join, normalise
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

# What a backend tells of a file's content, the surest first; it is told under several names.
_ETAGS = ("ETag", "etag")
_CHECKSUMS = ("md5", "md5Hash", "content_md5", "checksum", "crc32c", "Content-MD5", "Digest", "CRC")
_VERSIONS = ("generation", "VersionId", "version_id")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "modified", "mtime", "date_time")
Evidence = Literal["content", "etag", "checksum", "version", "time"]
_EVIDENCE: tuple[tuple[Evidence, tuple[str, ...]], ...] = (
    ("etag", _ETAGS),
    ("checksum", _CHECKSUMS),
    ("version", _VERSIONS),
    ("time", _TIMES),
)

# Folders and files that operating systems, storage devices and tools leave among pictures.
_SYSTEM = re.compile(
    r"@eadir|\.@__thumb|[@#$]recycle(\.bin)?|system volume information|__macosx|__pycache__|lost\+found|"
    r"(eh)?thumbs\.db|desktop\.ini|\.ds_store|\._.*|\.appledouble|\.spotlight-v100|\.fseventsd|\.temporaryitems|"
    r"\.thumbnails|\.trash(es|-.*)?|\.nfs.*|\.fuse_hidden.*|~\$.*|\.stfolder|\.snapshots?|\.zfs|\.cache|"
    r"\.ipynb_checkpoints|\.(git|svn|hg|dvc|idea|vscode)|\.(git|dvc)(ignore|attributes|keep)|\.keep|\.directory|"
    r"\.nomedia",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FolderTree:
    """Files and folders below a folder, as paths relative to it.

    Attributes:
        folders: Folders, without hidden ones and those of the system.
        files: Files, likewise.
        hidden: Files whose own name, or that of a folder above, starts with a dot.
        passed_over: What is neither: the system's, pipes, devices.
    """

    folders: frozenset[str]
    files: frozenset[str]
    hidden: frozenset[str] = frozenset()
    passed_over: tuple[PassedOver, ...] = ()
    _folders_in: Mapping[str, list[str]] = field(init=False, repr=False, compare=False)
    _files_in: Mapping[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort what there is by the folder that it lies in."""
        object.__setattr__(self, "_folders_in", _by_parent(self.folders))
        object.__setattr__(self, "_files_in", _by_parent(self.files))

    def children(self, folder: str = "") -> set[str]:
        """Names of the folders directly in ``folder``."""
        return {path.rpartition("/")[2] for path in self._folders_in.get(folder, ())}

    def files_in(self, folder: str) -> list[str]:
        """The files directly in ``folder``, sorted."""
        return sorted(self._files_in.get(folder, ()))

    def files_below(self, folder: str) -> list[str]:
        """All files in ``folder`` and below, sorted."""
        found: list[str] = []
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            found += self._files_in.get(here, ())
            waiting += self._folders_in.get(here, ())
        return sorted(found)


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
            full = self._join(path)
            if self.is_local and not os.path.isfile(full):
                # A pipe or a device would be waited for without end.
                os.stat(full)
                raise DataError(f"{self.locate(path)}: expected a regular file")
            return bytes(self._filesystem.cat_file(full))

    def read_head(self, path: str, num_bytes: int) -> bytes:
        """The first bytes of a file.

        Raises:
            DataError: It is missing or cannot be read.
        """
        with self._errors(path):
            return bytes(self._filesystem.cat_file(self._join(path), start=0, end=num_bytes))

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
                walk_local(self._root or "/", lambda name: not _is_system(name))
                if self.is_local
                else (*self._find_remote(), [])
            )
        system = {_system_part(path) for path in (*folders, *files)} - {None}
        visible = [path for path in files if _system_part(path) is None]
        hidden = frozenset(path for path in visible if _is_hidden(path))
        return FolderTree(
            folders=frozenset(
                path for path in folders if _system_part(path) is None and not _is_hidden(path)
            ),
            files=frozenset(visible) - hidden,
            hidden=hidden,
            passed_over=(
                *pass_over("folders and files of the system", filter(None, system)),
                *pass_over("pipes or devices", others),
            ),
        )

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
                if info is not None and not _find_tag(info):
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
        found = _find_tag(info)
        if found is None:
            return hashlib.sha256(self._filesystem.cat_file(full)).hexdigest(), "content"
        tag, kind = found
        return f"{info.get('size')}:{tag}", kind


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


def _is_hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path


def _is_system(name: str) -> bool:
    return _SYSTEM.fullmatch(name) is not None


def _system_part(path: str) -> str | None:
    """The path up to the first part that is of the system; None if none is."""
    parts = path.split("/")
    place = next((place for place, part in enumerate(parts) if _is_system(part)), None)
    return None if place is None else "/".join(parts[: place + 1])


def _by_parent(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[path.rpartition("/")[0]].append(path)
    return found


def _find_tag(info: Mapping[str, Any]) -> tuple[Any, Evidence] | None:
    """What the backend tells of a file's content, and the kind of it."""
    told = ((info[name], kind) for kind, names in _EVIDENCE for name in names if info.get(name))
    return next(told, None)


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
