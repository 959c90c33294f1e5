"""Writes the catalog: what the rollouts say is served, for engines to follow.

One listing of MLflow's models tells which tasks differ from the catalog; only of these the rollout is read,
moves made in MLflow's page taken in and aliases brought in line. A registry that does not own the store
changes nothing, and neither does one that lacks many tasks at once.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.errors import ObjectConflict, OrchestratorError, RegistryError, StoreError
from orchestrator.registry.catalog_states import State, catalog_of, state_of, state_of_view, with_states
from orchestrator.registry.mirror import MAX_TRIES
from orchestrator.registry.ownership import check_owner
from orchestrator.registry.registry import Registry, RegistryDown
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import CHAMPION, ModelView
from orchestrator.store.documents.catalog import Catalog, CatalogEntry, IdleTask
from orchestrator.store.documents.rollout import BrokenRolloutError, Rollout
from orchestrator.store.prompt_store import PromptStore

__all__ = ["CatalogChange", "CatalogWriter", "Served", "follow_rollout", "serve_now"]

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
        problems: Problem by task: its entry stays as it was, or goes by what is right of it.
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


@dataclass(frozen=True, kw_only=True)
class Served:
    """What the catalog, which endpoints follow, has of a task.

    Attributes:
        version: Version that it says is served; None for none, or where it cannot be read.
        problem: Why it is not as the rollout says; None if it is.
    """

    version: int | None
    problem: str | None


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
        # The catalog as it was left by the last look.
        self._left: Catalog | None = None
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
        self._note_others(catalog)
        problems: dict[str, str] = {}
        changed = self._read_changed(catalog, problems) if looks_at_rollouts else {}
        try:
            identity = check_owner(self._store, self._registry)
            views = {view.task: view for view in self._registry.models()}
        except RegistryDown:
            self._follow_rollouts(catalog, etag)
            raise
        wanted = {task: state_of_view(view, catalog.find(task)) for task, view in views.items()}
        differing = {task for task, state in wanted.items() if state != catalog.find(task)}
        problems |= {task: view.problem for task, view in views.items() if view.problem is not None}
        # A rollout counts, also where MLflow cannot be brought in line with it now.
        known = {**catalog.entries, **catalog.idle, **changed}
        wanted |= self._settle_all(differing | changed.keys() & views.keys(), views, known, problems)
        written = catalog_of(wanted, identity, catalog)
        missing, lost = self._find_lost(catalog, views, written, problems, may_drop=may_drop)
        kept = {task: catalog.entries[task] for task in missing}
        backbones = {digest: one for view in views.values() for digest, one in view.backbones.items()}
        written = catalog_of({**wanted, **kept}, identity, catalog, backbones)
        is_same = stored is not None and written == catalog
        if not is_same:
            self._store.write_catalog(written, if_match=etag)
            self._left = written
        if looks_at_rollouts:
            # One that could not be read or brought in line is looked at again.
            self._unread &= problems.keys()
        if lost:
            _logger.warning("%d tasks left the catalog: %s", len(lost), _some(lost))
        return CatalogChange(is_written=not is_same, lost=lost, missing=missing, problems=problems)

    def _note_others(self, catalog: Catalog) -> None:
        """Note the tasks whose entries others have changed since the last look, late or not."""
        before, self._left = self._left, catalog
        if before is None:
            return
        tasks = {*before.entries, *before.idle, *catalog.entries, *catalog.idle}
        self._unread |= {task for task in tasks if catalog.find(task) != before.find(task)}

    def _find_lost(
        self,
        catalog: Catalog,
        views: Mapping[str, ModelView],
        wanted: Catalog,
        problems: dict[str, str],
        *,
        may_drop: bool,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tasks of the catalog that stay although the registry does not have them, and those that leave."""
        retired = {task for task, idle in wanted.idle.items() if idle.is_retired}
        gone = sorted(set(catalog.entries) - set(wanted.entries) - retired)
        limit = max(MAX_LOST, int(MAX_LOST_SHARE * len(catalog.entries)))
        if len(gone) > limit and not may_drop:
            return tuple(gone), ()
        # A registry that hides a model from this user lists it no more than one that was deleted.
        unlisted = [task for task in gone if task not in views]
        missing = [task for task in unlisted if not self._is_deleted(task, problems)]
        lost = [task for task in gone if task not in missing]
        for task in lost:
            if task not in views:
                self._drop(task, problems)
        return tuple(missing), tuple(lost)

    def _drop(self, task: str, problems: dict[str, str]) -> None:
        try:
            self._rollouts.drop(task)
        except BrokenRolloutError as error:
            problems[task] = str(error)

    def _is_deleted(self, task: str, problems: dict[str, str]) -> bool:
        """Whether the registry says that it has no such model."""
        try:
            return self._registry.view(task) is None
        except RegistryError as error:
            problems[task] = str(error)
            return False

    def _settle_all(
        self,
        tasks: Iterable[str],
        views: Mapping[str, ModelView],
        known: Mapping[str, State],
        problems: dict[str, str],
    ) -> dict[str, State]:
        """States of tasks that are brought in line now; one that cannot be keeps the known one."""

        def settle(task: str) -> tuple[str, State, str | None]:
            try:
                rollout = self._rollouts.settle(task)
                # Without a rollout only MLflow tells what serves, and it does not.
                is_told = rollout.generation > 0 or CHAMPION not in views[task].broken
                return task, state_of(rollout) if is_told else known.get(task, IdleTask()), None
            except OrchestratorError as error:
                return task, known.get(task, IdleTask()), str(error)

        found = _in_threads(settle, tasks)
        problems |= {task: problem for task, _, problem in found if problem is not None}
        return {task: state for task, state, _ in found}

    def _read_changed(self, catalog: Catalog, problems: dict[str, str]) -> dict[str, State]:
        """States of the rollouts that the catalog does not show, of those that may have changed.

        These are what was written since the last look, and those of tasks whose entries others have changed:
        what a late writer left in the catalog does not stay.

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
            task: state
            for task, rollout in found.items()
            if (state := state_of(rollout)) != catalog.find(task) or not rollout.is_mirrored
        }

    def _follow_rollouts(self, catalog: Catalog, etag: str | None) -> None:
        """Without MLflow: let the catalog follow the rollouts that were changed since the last look."""
        if self._store.read_owner() is None:
            return
        problems: dict[str, str] = {}
        read = self._read_changed(catalog, problems)
        # Only of a task that was retired it is certain that nothing is to serve.
        changed = {
            task: state
            for task, state in read.items()
            if isinstance(state, CatalogEntry) or state.is_retired or task not in catalog.entries
        }
        written = with_states(catalog, changed)
        if written != catalog:
            self._store.write_catalog(written, if_match=etag)
            self._left = written
        for task, problem in problems.items():
            _logger.warning("task %s stays as it was: %s", task, problem)
        self._unread &= problems.keys()


def follow_rollout(store: PromptStore, rollout: Rollout, *, may_move: bool = False) -> bool:
    """Let the catalog follow a task's rollout at once; the poller does so later.

    The etag guards the catalog alone: a rollout that was read a minute ago may be older than what it replaces
    there. So the rollout is read again after each write, and a newer one is followed in turn.

    Args:
        store: Store of the catalog.
        rollout: The rollout as it was read, or written.
        may_move: Whether a task may begin to serve by it, or end; else its entry has to be there already.

    Returns:
        Whether the catalog is as the rollout says.

    Raises:
        StoreError: The catalog cannot be read or written, or the rollout cannot be read.
    """
    task, state = rollout.task, state_of(rollout)
    for _ in range(MAX_TRIES):
        stored = store.read_catalog()
        found = None if stored is None else stored[0].find(task)
        if stored is None or (type(found) is not type(state) and not may_move):
            return False
        if found == state:
            return True
        catalog, etag = stored
        with suppress(ObjectConflict):
            store.write_catalog(with_states(catalog, {task: state}), if_match=etag)
            current = store.read_rollout(task)
            if current is None or state_of(current[0]) == state:
                return True
            state = state_of(current[0])
    _logger.warning(
        "task %s: others changed it or the catalog %d times meanwhile; an endpoint, or `ship sync`, brings "
        "the catalog in line",
        *(task, MAX_TRIES),
    )
    return False


def serve_now(store: PromptStore, task: str) -> Served:
    """Let the catalog follow a task's rollout at once, and tell what it has then."""
    version, problem = None, "there is no catalog yet: `ship serve` writes it when it starts"
    try:
        stored = store.read_rollout(task)
        is_followed = stored is not None and follow_rollout(store, stored[0], may_move=True)
        if (found := store.read_catalog()) is not None:
            entry = found[0].entries.get(task)
            version = None if entry is None else entry.version
            problem = "others change the catalog all the time: an endpoint, or `ship sync`, tries again"
    except StoreError as error:
        return Served(version=version, problem=f"the catalog cannot be brought in line: {error}")
    return Served(version=version, problem=None if is_followed else problem)


def _in_threads(do: Callable[[str], Found], tasks: Iterable[str]) -> list[Found]:
    wanted = sorted(tasks)
    if not wanted:
        return []
    with ThreadPoolExecutor(min(_MAX_READERS, len(wanted))) as pool:
        return list(pool.map(do, wanted))


def _some(tasks: Iterable[str]) -> str:
    names = sorted(tasks)
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
