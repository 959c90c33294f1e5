"""Artifacts and rules on this machine's own disk, by digest: a restart needs no store for what it served.

One file a rule, as it is. One file an artifact: a line of JSON that gives each file's size, then the files
one after another. What is read is checked against the digest as if it came from the store. What goes wrong
here costs time and nothing else.
"""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from orchestrator.bounded_folder import BoundedFolder
from orchestrator.errors import StoreError
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.residency.loader import ArtifactSource
from orchestrator.store.artifact_files import MAX_FILE_BYTES, MAX_FILES, check_files
from orchestrator.store.documents.rule import MAX_RULE_BYTES, StoredRule
from ship.artifact.held_out import HELD_OUT

__all__ = ["DiskCache", "with_disk_cache"]

FOLDER = "prompts"
_SUFFIX, _RULE_SUFFIX = ".artifact", ".rule"
_MAX_HEADER_BYTES = 16 << 10
_MAX_BYTES = _MAX_HEADER_BYTES + (MAX_FILES + 1) * MAX_FILE_BYTES
# An artifact is a few hundred kilobytes: what is passed of the limit is small.
_LOOK_EVERY = 64
_log = logging.getLogger(__name__)


class DiskCache:
    """An ``ArtifactSource`` in front of another one. Threads and processes may share its folder.

    Args:
        source: Where artifacts come from.
        folder: Folder of this user alone.
        limit_bytes: Most bytes that are kept.
    """

    def __init__(self, source: ArtifactSource, folder: Path, limit_bytes: int) -> None:
        self._source = source
        self._files = BoundedFolder(folder, limit_bytes, look_every=_LOOK_EVERY)
        self._warned = threading.Event()

    def fetch(self, digest: str) -> Mapping[str, bytes]:
        """All files of an artifact, from here or from the source; raises as that does."""
        if (kept := self._read(digest)) is not None:
            return kept
        files = self._source.fetch(digest)
        self._keep(digest, files)
        return files

    def fetch_rule(self, digest: str) -> bytes:
        """The content of a decision rule, from here or from the source; raises as that does."""
        path = self._files.path(digest + _RULE_SUFFIX)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_RULE_BYTES + 1)
            if StoredRule.digest_of(content) == digest:
                self._files.note_use(path.name)
                return content
            _log.warning("%s is damaged; it is fetched again", path)
            self._files.drop(path.name)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn(error)
        content = self._source.fetch_rule(digest)
        self._keep_file(path.name, content)
        return content

    def _read(self, digest: str) -> dict[str, bytes] | None:
        path = self._files.path(digest + _SUFFIX)
        try:
            with path.open("rb") as file:
                files = _split(file.read(_MAX_BYTES + 1))
            if check_files(files, but=[HELD_OUT]) != digest:
                raise StoreError("it is another artifact")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        except (StoreError, ValueError, RecursionError) as error:
            _log.warning("%s is damaged (%s); it is fetched again", path, error)
            self._files.drop(path.name)
            return None
        self._files.note_use(path.name)
        return files

    def _keep(self, digest: str, files: Mapping[str, bytes]) -> None:
        header = json.dumps({name: len(content) for name, content in files.items()}).encode() + b"\n"
        self._keep_file(digest + _SUFFIX, b"".join([header, *files.values()]))

    def _keep_file(self, name: str, content: bytes) -> None:
        try:
            self._files.keep(name, len(content), lambda path: path.write_bytes(content))
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        """Say so once: a disk that is full stays so for each of a thousand artifacts."""
        if not self._warned.is_set():
            self._warned.set()
            _log.warning("artifacts are not kept on disk: %s; serving goes on without (SHIP_CACHE)", error)


def with_disk_cache(source: ArtifactSource, options: EngineOptions) -> ArtifactSource:
    """The source, behind a cache on disk if the options name one."""
    if options.cache is None or not options.cache_bytes:
        return source
    return DiskCache(source, Path(options.cache).expanduser() / FOLDER, options.cache_bytes)


def _split(content: bytes) -> dict[str, bytes]:
    """The files of an artifact. Raises ``ValueError`` for anything that ``_keep`` did not write."""
    header, line_break, _ = content[:_MAX_HEADER_BYTES].partition(b"\n")
    sizes = json.loads(header)
    if not line_break or not isinstance(sizes, dict) or len(sizes) > MAX_FILES + 1:
        raise ValueError("its header is broken")
    files, start = {}, len(header) + 1
    for name, size in sizes.items():
        if type(size) is not int or size < 0:
            raise ValueError("its header is broken")
        files[name] = content[start : start + size]
        start += size
    if start != len(content):
        raise ValueError(f"expected {start} bytes, found {len(content)}")
    return files
