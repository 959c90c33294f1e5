"""Writes the catalog: what the rollouts say is served, for engines to follow.

One listing of MLflow's models tells which tasks differ from the catalog; only of these the rollout is read,
moves made in MLflow's page taken in and aliases brought in line. A registry that does not own the store
changes nothing, and neither does one that lacks many tasks at once.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from orchestrator.errors import ObjectConflict, OrchestratorError, RegistryError, StoreError
from orchestrator.registry.mirror import MAX_TRIES
from orchestrator.registry.ownership import check_owner
from orchestrator.registry.registry import Registry, RegistryDown
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import CHAMPION, ModelView, read_trials
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.rollout import Aliases, Rollout
from orchestrator.store.prompt_store import PromptStore

__all__ = ["CatalogChange", "CatalogWriter", "follow_rollout", "make_entry"]

Found = TypeVar("Found")
_logger = logging.getLogger(__name__)
# Tasks that may leave the catalog at a look: this many, or a tenth of it.
MAX_LOST, MAX_LOST_SHARE = 5, 0.1
_MAX_READERS = 16
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class CatalogChange:
    """What a look at the registry has led to.

    Attributes:
        is_written: Whether the catalog had to be changed.
        lost: Tasks that left the catalog.
        missing: Tasks that stay in the catalog, although the registry does not list them.
        problems: Problem by task: its entry stays as it was.
    """

    is_written: bool = False
    lost: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str | None:
        """What is wrong, for a log; None if nothing is."""
        parts = []
        if self.missing:
            parts.append(
                f"the registry lacks {len(self.missing)} tasks that are served ({_some(self.missing)}): they "
                "stay; `ship sync --drop` takes them out of service"
            )
        if self.problems:
            task, problem = next(iter(self.problems.items()))
            parts.append(f"{len(self.problems)} tasks stay as they were, such as {task}: {problem}")
        return "; ".join(parts) or None


class CatalogWriter:
    """Keeps one store's catalog in line with its rollouts and its registry.

    Args:
        registry: Registry of versions.
        store: Store of rollouts and of the catalog.
        rollouts: Brings single tasks in line; by default one of this registry and store.
    """

    def __init__(self, registry: Registry, store: PromptStore, rollouts: Rollouts | None = None) -> None:
        self._registry, self._store = registry, store
        self._rollouts = rollouts or Rollouts(registry, store)
        # When each rollout that was read was last written, by the store's clock.
        self._seen_s: dict[str, float] = {}
        self._unread: set[str] = set()

    def update(self, *, may_drop: bool = False, looks_at_rollouts: bool = False) -> CatalogChange:
        """Look at the registry, and write the catalog if it has to change.

        Args:
            may_drop: Whether tasks that the registry lacks leave the catalog, however many they are.
            looks_at_rollouts: Whether rollouts that were written since the last such look are read, too:
                those of a command that ended before MLflow followed.

        Raises:
            ForeignRegistryError: The registry does not own the store; the catalog stays as it is.
            RegistryDown: MLflow cannot be read; only rollouts that were changed are followed.
            ObjectConflict: Another writer was faster.
            StoreError: The store cannot be read or written.
        """
        stored = self._store.read_catalog()
        catalog, etag = stored if stored is not None else (Catalog(entries={}), None)
        problems: dict[str, str] = {}
        changed = self._read_changed(catalog, problems) if looks_at_rollouts else {}
        try:
            identity = check_owner(self._store, self._registry)
            views = {view.task: view for view in self._registry.models()}
        except RegistryDown:
            self._follow_rollouts(catalog, etag)
            raise
        wanted: dict[str, CatalogEntry | None] = {
            task: _entry_of_view(view, catalog.entries.get(task)) for task, view in views.items()
        }
        differing = {task for task, entry in wanted.items() if entry != catalog.entries.get(task)}
        # A rollout counts, also where MLflow cannot be brought in line with it now.
        known = {**catalog.entries, **changed}
        wanted |= self._settle_all(differing | changed.keys() & views.keys(), known, problems)
        entries = {task: entry for task, entry in wanted.items() if entry is not None}
        missing, lost = self._find_lost(catalog, views, entries, problems, may_drop=may_drop)
        entries |= {task: catalog.entries[task] for task in missing}
        is_same = stored is not None and entries == dict(catalog.entries) and catalog.registry == identity
        if not is_same:
            self._store.write_catalog(Catalog(entries=entries, registry=identity), if_match=etag)
        if looks_at_rollouts:
            # One that could not be read or brought in line is looked at again.
            self._unread &= problems.keys()
        if lost:
            _logger.warning("%d tasks left the catalog: %s", len(lost), _some(lost))
        return CatalogChange(is_written=not is_same, lost=lost, missing=missing, problems=problems)

    def _find_lost(
        self,
        catalog: Catalog,
        views: Mapping[str, ModelView],
        entries: Mapping[str, CatalogEntry],
        problems: dict[str, str],
        *,
        may_drop: bool,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tasks of the catalog that stay although the registry does not have them, and those that leave."""
        gone = sorted(set(catalog.entries) - set(entries))
        limit = max(MAX_LOST, int(MAX_LOST_SHARE * len(catalog.entries)))
        if len(gone) > limit and not may_drop:
            return tuple(gone), ()
        # A registry that hides a model from this user lists it no more than one that was deleted.
        unlisted = [task for task in gone if task not in views]
        missing = [task for task in unlisted if not self._is_deleted(task, problems)]
        lost = [task for task in gone if task not in missing]
        for task in lost:
            if task not in views:
                self._rollouts.drop(task)
        return tuple(missing), tuple(lost)

    def _is_deleted(self, task: str, problems: dict[str, str]) -> bool:
        """Whether the registry says that it has no such model."""
        try:
            return self._registry.view(task) is None
        except RegistryError as error:
            problems[task] = str(error)
            return False

    def _settle_all(
        self, tasks: Iterable[str], known: Mapping[str, CatalogEntry | None], problems: dict[str, str]
    ) -> dict[str, CatalogEntry | None]:
        """Entries of tasks that are brought in line now; one that cannot be keeps the known one."""

        def settle(task: str) -> tuple[str, CatalogEntry | None, str | None]:
            try:
                return task, _entry_of(self._rollouts.settle(task)), None
            except OrchestratorError as error:
                return task, known.get(task), str(error)

        found = _in_threads(settle, tasks)
        problems |= {task: problem for task, _, problem in found if problem is not None}
        return {task: entry for task, entry, _ in found}

    def _read_changed(self, catalog: Catalog, problems: dict[str, str]) -> dict[str, CatalogEntry | None]:
        """Entries of the rollouts that were written since the last look and that the catalog does not show.

        One that cannot be read is noted as a problem, and is no matter of the others.

        As far as the store's clock can tell, which counts in seconds: one that was written just now may be
        written again in the same second.
        """
        listed = dict(self._store.scan_rollouts())
        newest_s = max(listed.values(), default=0.0)
        self._unread |= {task for task, at_s in listed.items() if self._seen_s.get(task) != at_s}
        self._seen_s = {task: at_s for task, at_s in listed.items() if at_s < newest_s - 2.0}

        def read(task: str) -> Rollout | None:
            try:
                stored = self._store.read_rollout(task)
                if stored is not None and stored[0].trail.waiting and not self._rollouts.log(task):
                    problems[task] = "its last change waits for the audit log, which cannot be written"
            except StoreError as error:
                problems[task] = str(error)
                return None
            return None if stored is None else stored[0]

        read_now = _in_threads(read, self._unread)
        found = {rollout.task: rollout for rollout in read_now if rollout is not None}
        return {
            task: entry
            for task, rollout in found.items()
            if (entry := _entry_of(rollout)) != catalog.entries.get(task) or not rollout.is_mirrored
        }

    def _follow_rollouts(self, catalog: Catalog, etag: str | None) -> None:
        """Without MLflow: let the catalog follow the rollouts that were changed since the last look."""
        if self._store.read_owner() is None:
            return
        problems: dict[str, str] = {}
        read = self._read_changed(catalog, problems)
        changed = {task: entry for task, entry in read.items() if entry is not None}
        entries = {**catalog.entries, **changed}
        if entries != dict(catalog.entries):
            self._store.write_catalog(Catalog(entries=entries, registry=catalog.registry), if_match=etag)
        for task, problem in problems.items():
            _logger.warning("task %s stays as it was: %s", task, problem)
        self._unread &= problems.keys()


def make_entry(
    aliases: Aliases, digests: Mapping[int, str | None], rules: Mapping[str, str] | None = None
) -> CatalogEntry | None:
    """A task's entry in the catalog; None if it has no champion with an artifact of ours.

    Args:
        aliases: Aliases of its versions.
        digests: Digests of the versions that have an alias; None for versions registered by other programs.
        rules: Digests of decision rules by digest of the artifact, also of artifacts that are not served.
    """
    known = {version: digest for version, digest in digests.items() if digest is not None}
    champion = aliases.versions.get(CHAMPION)
    if champion is None or champion not in known:
        return None
    trials = read_trials(aliases)
    named = set(known.values())
    digest = known.pop(champion)
    return CatalogEntry(
        version=champion,
        digest=digest,
        others=known,
        canary=trials.canary if trials.canary and trials.canary.version in known else None,
        shadow=trials.shadow if trials.shadow in known else None,
        rules={artifact: rule for artifact, rule in sorted((rules or {}).items()) if artifact in named},
    )


def follow_rollout(store: PromptStore, rollout: Rollout) -> bool:
    """Let the catalog follow one rollout at once, if it names the task already; the poller does so later.

    Returns:
        Whether the catalog is as the rollout says.

    Raises:
        StoreError: The catalog cannot be read or written.
    """
    for _ in range(MAX_TRIES):
        stored, entry = store.read_catalog(), _entry_of(rollout)
        if stored is None or entry is None or rollout.task not in stored[0].entries:
            return False
        catalog, etag = stored
        if catalog.entries[rollout.task] == entry:
            return True
        with suppress(ObjectConflict):
            entries = {**catalog.entries, rollout.task: entry}
            store.write_catalog(replace(catalog, entries=entries), if_match=etag)
    return False


def _entry_of(rollout: Rollout) -> CatalogEntry | None:
    digests = {version: ref.digest for version, ref in rollout.versions.items()}
    return make_entry(rollout.aliases, digests, rollout.rules)


def _in_threads(do: Callable[[str], Found], tasks: Iterable[str]) -> list[Found]:
    wanted = sorted(tasks)
    if not wanted:
        return []
    with ThreadPoolExecutor(min(_MAX_READERS, len(wanted))) as pool:
        return list(pool.map(do, wanted))


def _entry_of_view(view: ModelView, known: CatalogEntry | None) -> CatalogEntry | None:
    """A task's entry as MLflow has it, which knows no rules: the known one where nothing else differs."""
    entry = make_entry(view.standing, view.digests)
    return known if known is not None and entry == replace(known, rules={}) else entry


def _some(tasks: Iterable[str]) -> str:
    names = sorted(tasks)
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
