"""Garbage collection of a store: finds unreferenced objects and removes them; ``finding`` decides which.

Safe beside tunings under way, whatever this host's clock says. What exists is listed before what refers to
it; nothing young is taken, by the store's own clock, and nothing that no earlier run has marked. Each find is
looked at again right before it goes, and publications are read again: what was published meanwhile stays.
They are read once more after the deletions, which may have taken long, and what was published by then is put
back; a publisher that comes later finds its files missing, and writes them again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Protocol

from orchestrator.errors import ObjectMissing, RegistryError
from orchestrator.store.artifact_files import MAX_FILE_BYTES
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.publication import Publication
from orchestrator.store.garbage.finding import Garbage, References, StoreListing, find_garbage
from orchestrator.store.garbage.marks import Marks, store_time_s
from orchestrator.store.kept.pictures import KeepLimits, KeptPictures
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.prompt_store import NUM_READERS, PromptStore

__all__ = ["DAY_S", "Collector", "DigestSource"]

DAY_S = 86400.0
# Artifacts that are read, removed and checked together: few enough for memory.
BATCH = 16
# Artifacts that an entry of the audit log names.
_NAMED = 200
# By task and task key.
Published = dict[tuple[str, str], Publication]


class DigestSource(Protocol):
    """The registry, as far as it matters here."""

    def referenced_digests(self) -> set[str]:
        """Digests of artifacts that any version names. Raises ``RegistryError`` if it cannot tell."""
        ...


class Collector:
    """Garbage collection of one store.

    Args:
        objects: Object store.
        registry: Registry of the MLflow that belongs to the store.
        now: Current time by the store's clock; by default the store is asked.
    """

    def __init__(
        self, objects: ObjectStore, registry: DigestSource, now: Callable[[], float] | None = None
    ) -> None:
        self._objects = objects
        self._store = PromptStore(objects)
        self._registry = registry
        self._now = now or (lambda: store_time_s(objects))
        self._now_s: float | None = None

    @property
    def now_s(self) -> float:
        """Time of the last look, by the store's clock."""
        if self._now_s is None:
            self._now_s = self._now()
        return self._now_s

    def find(self, older_than_s: float) -> list[Garbage]:
        """List the garbage; nothing is changed.

        Args:
            older_than_s: Least age in seconds.

        Raises:
            RegistryError: MLflow cannot be asked, or is not the one that goes with this store.
            StoreError: The store cannot be read, or a publication or the catalog is damaged.
        """
        self._now_s = None
        before_s = self.now_s - older_than_s
        # In this order: an artifact that gets its publication after it was listed is then seen as published.
        listing = StoreListing(
            artifacts=list(self._objects.scan("artifacts/")),
            snapshots=list(self._objects.scan("snapshots/")),
            leftovers=list(self._objects.leftovers()),
            rules=list(self._objects.scan("rules/")),
            backbones=list(self._objects.scan("backbones/")),
        )
        references = self._references(with_rules=bool(listing.rules))
        return find_garbage(listing, references, before_s=before_s)

    def waits_s(self, garbage: Sequence[Garbage], marked_for_s: float) -> list[float]:
        """Seconds until each may be removed, 0 for now; all of the wait for what is not marked yet."""
        return self._waits_s(Marks(self._objects), garbage, marked_for_s)

    def remove(
        self, garbage: Sequence[Garbage], marked_for_s: float = DAY_S, author: Author | None = None
    ) -> list[Garbage]:
        """Mark garbage, and remove that which was marked long enough ago and is still garbage.

        Args:
            garbage: Garbage that was found just now.
            marked_for_s: Least seconds since it was marked.
            author: Author of the removal, for the audit log, which names what is about to be removed, and
                then what was; None for no log.

        Returns:
            What was removed.

        Raises:
            ObjectConflict: Another run marks at the same time.
            StoreError: Something cannot be removed; what was removed before stays so.
        """
        marks = Marks(self._objects)
        waits_s = self._waits_s(marks, garbage, marked_for_s)
        marks.put(garbage, self.now_s)
        due = [found for found, wait_s in zip(garbage, waits_s, strict=True) if wait_s == 0.0]
        known = self._store.all_published()
        removed: list[Garbage] = []
        self._log("gc-begin", due, author)
        batches = iter(due)
        while batch := list(islice(batches, BATCH)):
            removed += self._remove_batch(batch, known)
        self._log("gc", removed, author)
        return removed

    def find_kept(self, limits: KeepLimits) -> list[Garbage]:
        """Kept pictures over the limits of their tasks; they may go at once."""
        return [
            Garbage(
                kind="kept",
                name=f"{one.task}/{one.picture}",
                keys=(),
                num_bytes=one.num_bytes,
                modified_s=one.modified_s,
                reason="it is too old, or its task keeps too many",
            )
            for one in KeptPictures(self._objects).excess(limits, self.now_s)
        ]

    def remove_kept(self, pictures: Sequence[Garbage], author: Author | None = None) -> None:
        """Remove kept pictures that were found just now, with what persons said of them."""
        kept = KeptPictures(self._objects)
        for one in pictures:
            task, _, picture = one.name.partition("/")
            kept.drop(task, picture)
        self._log("gc-kept", pictures, author)

    def _log(self, action: str, garbage: Sequence[Garbage], author: Author | None) -> None:
        if author is None or not garbage:
            return
        artifacts = [found.name for found in garbage if found.kind == "artifact"]
        told = {
            "num_objects": sum(len(found.keys) for found in garbage),
            "num_bytes": sum(found.num_bytes for found in garbage),
            "num_artifacts": len(artifacts),
            "artifacts": artifacts[:_NAMED],
        }
        AuditLog(self._store).append(action, None, {}, told, author.reason, author)

    def _waits_s(self, marks: Marks, garbage: Sequence[Garbage], marked_for_s: float) -> list[float]:
        times_s = [marks.since_s(found) for found in garbage]
        return [
            marked_for_s if time_s is None else max(0.0, time_s + marked_for_s - self.now_s)
            for time_s in times_s
        ]

    def _remove_batch(self, batch: Sequence[Garbage], known: Published) -> list[Garbage]:
        """Remove garbage that is not published, as far as is known once it is gone."""
        published = self._published_now(known)
        due = [found for found in batch if found.name not in published and not self._is_written_again(found)]
        contents = {found.name: self._read(found) for found in due if found.kind == "artifact"}
        for found in due:
            for key in found.keys:
                if found.kind == "temporary":
                    self._objects.drop_leftover(key)
                else:
                    self._objects.delete(key)
        back = self._published_now(known).intersection(contents)
        for name in back:
            # The card comes last.
            for key, content in reversed(contents[name].items()):
                self._objects.put(key, content)
        return [found for found in due if found.name not in back]

    def _published_now(self, known: Published) -> set[str]:
        """Digests of all publications; those that came since are read, and known from then on."""
        known.update(self._store.find_published(self._store.published_keys() - known.keys()))
        return {publication.digest for publication in known.values()}

    def _read(self, found: Garbage) -> dict[str, bytes]:
        """Content by key; what is gone already is left out."""
        contents = {}
        for key in found.keys:
            with suppress(ObjectMissing):
                contents[key] = self._objects.get(key, max_bytes=MAX_FILE_BYTES).data
        return contents

    def _references(self, *, with_rules: bool) -> References:
        publications = self._store.all_published()
        published = {publication.digest for publication in publications.values()}
        registered = self._registry.referenced_digests()
        if published and not published & registered:
            raise RegistryError(
                f"MLflow knows none of the {len(published)} artifacts that are published in "
                f"{self._store.url}, so it may not be the one that goes with this store; check "
                "MLFLOW_TRACKING_URI. If nothing was recorded because MLflow was down, `ship tune MANIFEST` "
                "records it"
            )
        catalog = self._store.read_catalog()
        served = catalog[0].digests if catalog else frozenset()
        rules = catalog[0].named_rules if catalog else frozenset()
        return References(
            digests=frozenset(published | registered) | served,
            published=frozenset(publications),
            rules=frozenset(rules | self._named_rules() if with_rules else rules),
        )

    def _named_rules(self) -> set[str]:
        """Digests of the rules that a rollout names; one that cannot be read may name any."""
        tasks = [task for task, _ in self._store.scan_rollouts()]
        with ThreadPoolExecutor(NUM_READERS) as readers:
            stored = list(readers.map(self._store.read_rollout, tasks))
        return {rule for found in stored if found is not None for rule in found[0].rules.values()}

    def _is_written_again(self, found: Garbage) -> bool:
        if found.kind == "temporary":
            return False
        # Any of an artifact's files; the one object of all other kinds.
        prefix = f"artifacts/{found.name}/" if found.kind == "artifact" else found.keys[0]
        return any(one.modified_s > found.modified_s for one in self._objects.scan(prefix))
