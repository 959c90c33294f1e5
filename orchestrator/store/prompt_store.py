"""Artifacts, publications, snapshots and the catalog, in one store of objects::

    artifacts/<digest>/<file>          written once, verified
    published/<task>/<task_key>.json   the marker; written last and only once: this is the publication
    snapshots/<task>/<task_key>        a tuning under way; replaced by its tuner, dropped once published
    rollouts/<task>.json               which versions of a task serve and are tried; see ``documents.rollout``
    rules/<digest>.json                a decision rule, written once; see ``documents.rule``
    registry.json                      the registry that this store belongs to; see ``documents.owner``
    recorder.json                      the lease of the process that writes to MLflow; see ``lease``
    audit/<number>.json                the audit log; see ``audit``
    catalog.json                       what is served
    tokens.json                        tokens of clients
    drift.json                         whether served pictures drift; see ``documents.drift``
    kept/<task>/<sha256>.*             pictures that endpoints kept; see ``kept``
    reviews/<task>/<sha256>.json       what persons say that they show; see ``documents.review``
    garbage/marked.json                unreferenced objects, marked by `ship gc` before they are removed

A marker's *name* says that a key is done, its content says with which digest. A digest in the name would make
one listing tell everything, but then two writers could publish two digests for one key, and that must be
impossible. So a plan, which only asks what is done, costs one listing (``published_keys``), and digests are
read by many threads, for requested tasks only (``find_published``).

Mutable objects are written by compare-and-swap: rollouts, the catalog and the tokens by the etag that their
writer passes on, a snapshot by the etag that ``snapshots`` remembers.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.names import check_task_name, is_task_name
from orchestrator.store.artifact_files import MAX_FILE_BYTES, check_digest, check_files
from orchestrator.store.artifact_reading import fetch_card, fetch_files, fetch_held_out
from orchestrator.store.documents.catalog import CATALOG_KEY, MAX_CATALOG_BYTES, Catalog
from orchestrator.store.documents.owner import MAX_OWNER_BYTES, Owner
from orchestrator.store.documents.publication import Marker, Publication, check_task_key, make_marker
from orchestrator.store.documents.rollout import MAX_ROLLOUT_BYTES, BrokenRolloutError, Rollout, rollout_key
from orchestrator.store.documents.tokens import Tokens
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.rules import RuleStore
from orchestrator.store.snapshots import SnapshotStore
from ship.artifact.card import CARD
from ship.artifact.held_out import HeldOut

__all__ = ["PromptStore"]

_logger = logging.getLogger(__name__)
MAX_MARKER_BYTES = 4096
MAX_TOKENS_BYTES = 1 << 20
NUM_READERS = 16
Value = TypeVar("Value")
_TOKENS, _OWNER = "tokens.json", "registry.json"


class PromptStore:
    """The store of prompts.

    Attributes:
        rules: Its decision rules.
        snapshots: Its snapshots of tunings under way.

    Args:
        objects: Object store.
        clock: Current time, seconds since the epoch.
    """

    def __init__(self, objects: ObjectStore, clock: Callable[[], float] = time.time) -> None:
        self._objects, self._clock = objects, clock
        self.rules, self.snapshots = RuleStore(objects), SnapshotStore(objects)
        # Catalog and tokens as they were read last, each with its etag.
        self._values: dict[str, tuple[Any, str]] = {}

    @property
    def objects(self) -> ObjectStore:
        """The object store."""
        return self._objects

    @property
    def url(self) -> str:
        """URL of the store, without credentials."""
        return self._objects.url

    def uri(self, digest: str) -> str:
        """URI of an artifact's folder."""
        return f"{self._objects.url}/artifacts/{check_digest(digest)}"

    def publish(
        self,
        task: str,
        task_key: str,
        files: Mapping[str, bytes],
        watch: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> Publication:
        """Write an artifact and make it the result of ``task_key``.

        The first writer wins. A later one, such as a worker that was thought dead, changes nothing and is
        told the digest that counts.

        Args:
            task: Name of the task.
            task_key: Digest of the data and the settings that it was tuned from.
            files: The artifact: ``prompt.json`` and the files that it describes, no others.
            watch: Context of each object's write, by its URL.

        Raises:
            StoreError: The files do not agree with ``prompt.json``, or the store failed.
        """
        if (earlier := self.published(task, task_key)) is not None:
            self.drop_snapshot(task, task_key)
            return earlier
        digest = check_files(files)
        self._write_artifact(digest, files, watch)
        marker = make_marker(task, task_key, digest, self._clock())
        key = _marker_key(task, task_key)
        with watch(f"{self.url}/{key}"):
            self._objects.put_new(key, marker)
            standing = self._objects.get(key, max_bytes=MAX_MARKER_BYTES).data
        if standing == marker:
            # A sweep that listed the store before the marker was there may have taken files of an earlier,
            # unpublished artifact with this digest. From here on none will.
            self._write_artifact(digest, files, watch, only_missing=True)
        self.drop_snapshot(task, task_key)
        return self._publication(key, standing, created=standing == marker)

    def drop_snapshot(self, task: str, task_key: str) -> None:
        """Forget the snapshot of a published task; one that has to be left behind is no reason to fail."""
        try:
            self.snapshots.drop(task, task_key)
        except StoreError as error:
            _logger.warning(
                "task %s is published, but its snapshot is left behind (`ship gc` removes it): %s",
                task,
                error,
            )

    def published(self, task: str, task_key: str) -> Publication | None:
        """The publication of ``task_key``, if there is one."""
        key = _marker_key(task, task_key)
        try:
            return self._publication(key, self._objects.get(key, max_bytes=MAX_MARKER_BYTES).data)
        except ObjectMissing:
            return None

    def published_keys(self) -> set[tuple[str, str]]:
        """Task and task key of everything that is published: one listing, no reads."""
        found = set()
        for key in self._objects.list("published/"):
            _, task, *name = key.split("/")
            if is_task_name(task) and len(name) == 1 and name[0].endswith(".json"):
                found.add((task, name[0].removesuffix(".json")))
        return found

    def find_published(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Publication]:
        """Publications of those of ``wanted`` (task, task key) that are published."""
        pairs = sorted(set(wanted))
        with ThreadPoolExecutor(NUM_READERS) as readers:
            found = readers.map(lambda pair: self.published(*pair), pairs)
            return {
                pair: publication
                for pair, publication in zip(pairs, found, strict=True)
                if publication is not None
            }

    def all_published(self) -> dict[tuple[str, str], Publication]:
        """All publications, by task and task key."""
        return self.find_published(self.published_keys())

    def fetch(self, digest: str) -> dict[str, bytes]:
        """The files of an artifact but ``held_out.json``, each checked against the digest.

        Raises:
            ObjectMissing: There is no such artifact, or a file of it is gone.
            StoreError: A file is not what the digest stands for, or is too large.
        """
        return fetch_files(self._objects, digest)

    def fetch_card(self, digest: str) -> bytes:
        """The content of an artifact's ``prompt.json``; raises as ``fetch`` does."""
        return fetch_card(self._objects, digest)

    def fetch_held_out(self, digest: str) -> HeldOut | None:
        """The held-out answers of an artifact; None of an earlier version's, which has none.

        Raises:
            ObjectMissing: There is no such artifact, or its file is gone.
            StoreError: It is not what the digest stands for, or not as expected.
        """
        return fetch_held_out(self._objects, digest)

    def fetch_rule(self, digest: str) -> bytes:
        """The content of a decision rule; see ``RuleStore.fetch``."""
        return self.rules.fetch(digest)

    def read_rollout(self, task: str) -> tuple[Rollout, str] | None:
        """The rollout of a task and its etag; None before its first change.

        Raises:
            BrokenRolloutError: It is not one.
            StoreError: It cannot be read, or is of a later version of this program.
        """
        key = rollout_key(task)
        try:
            stored = self._objects.get(key, max_bytes=MAX_ROLLOUT_BYTES)
        except ObjectMissing:
            return None
        try:
            rollout = Rollout.from_json(stored.data, f"{self.url}/{key}")
            if rollout.task != task:
                raise BrokenRolloutError(f"{self.url}/{key}: it is the rollout of task {rollout.task!r}")
        except BrokenRolloutError as error:
            error.etag = stored.etag
            raise
        return rollout, stored.etag

    def write_rollout(self, rollout: Rollout, if_match: str | None) -> str:
        """Write the rollout of a task; returns its new etag.

        Args:
            rollout: The new rollout.
            if_match: Etag of the rollout that this one replaces; None for the first one.

        Raises:
            ObjectConflict: Another writer was faster: read it again.
            StoreError: It could not be read again.
        """
        key, content = rollout_key(rollout.task), rollout.to_json()
        try:
            Rollout.from_json(content, f"{self.url}/{key}, which is not written")
        except BrokenRolloutError as error:
            # What is stored is not broken: nothing is to be written anew.
            raise StoreError(error.problems) from None
        return self._replace(key, content, if_match, MAX_ROLLOUT_BYTES)

    def scan_rollouts(self) -> Iterator[tuple[str, float]]:
        """Task of each rollout, and when it was last written by the backend's clock."""
        for found in self._objects.scan("rollouts/"):
            task = found.key.removeprefix("rollouts/").removesuffix(".json")
            if is_task_name(task):
                yield task, found.modified_s

    def read_owner(self) -> tuple[Owner, str] | None:
        """The registry that this store belongs to, and the etag; None before one has claimed it."""
        return self._read(_OWNER, MAX_OWNER_BYTES, Owner.from_json)

    def write_owner(self, owner: Owner, if_match: str | None) -> str:
        """Let the store belong to a registry; returns the new etag.

        Raises:
            ObjectConflict: Another writer was faster: read it again.
        """
        return self._replace(_OWNER, owner.to_json(), if_match, MAX_OWNER_BYTES)

    def read_catalog(self) -> tuple[Catalog, str] | None:
        """The catalog and its etag; None before the first one is written.

        Raises:
            StoreError: It is not a catalog, or cannot be read.
        """
        return self._read(CATALOG_KEY, MAX_CATALOG_BYTES, Catalog.from_bytes)

    def write_catalog(self, catalog: Catalog, if_match: str | None) -> str:
        """Write the catalog; returns its new etag.

        Args:
            catalog: The new catalog.
            if_match: Etag of the catalog that this one replaces; None for the first one.

        Raises:
            ObjectConflict: Another writer was faster: read it again.
            StoreError: It is larger than a reader takes; the one before stays.
        """
        return self._replace(CATALOG_KEY, catalog.to_bytes(), if_match, MAX_CATALOG_BYTES)

    def read_tokens(self) -> tuple[Tokens, str] | None:
        """The tokens and their etag; None before the first one is made.

        Raises:
            StoreError: They are no tokens, or cannot be read.
        """
        return self._read(_TOKENS, MAX_TOKENS_BYTES, Tokens.from_json)

    def write_tokens(self, tokens: Tokens, if_match: str | None) -> str:
        """Write the tokens; returns their new etag.

        Args:
            tokens: The new tokens.
            if_match: Etag of those that they replace; None for the first ones.

        Raises:
            ObjectConflict: Another writer was faster: read them again.
            StoreError: They could not be read again: they are too many, or not as they have to be.
        """
        content = tokens.to_json()
        if len(content) > MAX_TOKENS_BYTES:
            raise StoreError(
                f"{self.url}/{_TOKENS}: {len(tokens.by_name)} tokens take {len(content)} bytes, expected at "
                f"most {MAX_TOKENS_BYTES}; `ship token revoke` those that are not in use"
            )
        # A token that cannot be read again would lock out its clients.
        found = Tokens.from_json(content).broken
        if new := [token.problem for name, token in found.items() if name not in tokens.broken]:
            raise StoreError(new)
        return self._replace(_TOKENS, content, if_match, MAX_TOKENS_BYTES)

    def _read(self, key: str, max_bytes: int, parse: Callable[[bytes], Value]) -> tuple[Value, str] | None:
        """The parsed object and its etag; the cached value while the etag is the same.

        Followers read each second, and a catalog may have thousands of tasks.
        """
        known = self._values.get(key)
        try:
            if known is None:
                stored = self._objects.get(key, max_bytes=max_bytes)
            elif (changed := self._objects.get_unless(key, known[1], max_bytes=max_bytes)) is not None:
                stored = changed
            else:
                return known
        except ObjectMissing:
            return None
        self._values[key] = parse(stored.data), stored.etag
        return self._values[key]

    def _replace(self, key: str, data: bytes, if_match: str | None, max_bytes: int) -> str:
        """Write an object in place of the one with that etag, or as the first one."""
        if if_match is not None:
            return self._objects.put(key, data, if_match=if_match)
        if not self._objects.put_new(key, data):
            raise ObjectConflict(f"{self.url}/{key}: there is one already; read it and repeat the change")
        stored = self._objects.get(key, max_bytes=max_bytes)
        if stored.data != data:
            raise ObjectConflict(f"{self.url}/{key}: another writer replaced it at once; read it again")
        return stored.etag

    def _write_artifact(
        self,
        digest: str,
        files: Mapping[str, bytes],
        watch: Callable[[str], AbstractContextManager[object]],
        *,
        only_missing: bool = False,
    ) -> None:
        """Write the files of an artifact, its card last."""
        for name in sorted(files, key=lambda name: (name == CARD, name)):
            key = f"artifacts/{digest}/{name}"
            with watch(f"{self.url}/{key}"):
                if not (only_missing and self._objects.exists(key)):
                    self._write_verified(key, files[name])

    def _write_verified(self, key: str, data: bytes) -> None:
        """Write a file whose name implies its content, so that writing it again can only mend it."""
        # A file that exists is written again: its new age protects it from a garbage collection under way.
        if self._objects.put_new(key, data) and self._reads_as(key, data):
            return
        self._objects.put(key, data)
        if not self._reads_as(key, data):
            raise StoreError(
                f"{self.url}/{key}: does not read back as it was written, twice; check the disk or the server"
            )

    def _reads_as(self, key: str, data: bytes) -> bool:
        return self._objects.get(key, max_bytes=MAX_FILE_BYTES).data == data

    def _publication(self, key: str, marker: bytes, *, created: bool = False) -> Publication:
        where = f"{self.url}/{key}"
        found = Marker.read(marker, f"{where}: not a publication", "delete it and tune the task again")
        if _marker_key(found.task, found.task_key) != key:
            raise StoreError(
                f"{where}: it is the publication of task {found.task!r}; delete it, and tune the task again"
            )
        return Publication(
            task=found.task,
            task_key=found.task_key,
            digest=found.digest,
            uri=self.uri(found.digest),
            time_s=found.time_s,
            created=created,
        )


def _marker_key(task: str, task_key: str) -> str:
    return f"published/{check_task_name(task)}/{check_task_key(task_key)}.json"
