"""The rollout of a task beside MLflow's aliases: reads both, takes in moves, and brings MLflow in line."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator.errors import ObjectConflict, RegistryError, StoreError
from orchestrator.registry.changes import logged
from orchestrator.registry.moves import take_in
from orchestrator.registry.registry import Registry, RegistryDown
from orchestrator.registry.session import NotRegisteredError
from orchestrator.registry.versions import (
    CANARY,
    CHAMPION,
    PREVIOUS,
    RETIRED,
    ModelView,
    VersionInfo,
    name_version,
    since_tag,
)
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import UNKNOWN, Author, shortened
from orchestrator.store.documents.rollout import (
    Aliases,
    BrokenRolloutError,
    Change,
    ChangeKind,
    Rollout,
    VersionRef,
)
from orchestrator.store.prompt_store import PromptStore

__all__ = ["MAX_TRIES", "Loaded", "Mirror", "VersionFinder", "ref_of"]

_logger = logging.getLogger(__name__)
MAX_TRIES = 20
# What serves, and what a rollback would let serve.
_SERVING = (CHAMPION, PREVIOUS, RETIRED)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A rollout as it was read.

    Attributes:
        rollout: The rollout; of a task without one, its aliases in MLflow as generation 0.
        etag: Its etag in the store; None if it is not stored yet.
        found: Aliases in MLflow, with those at versions that are gone; None if it cannot be reached.
    """

    rollout: Rollout
    etag: str | None
    found: Aliases | None

    @property
    def is_to_be_mended(self) -> bool:
        """Whether a change writes it even if it moves nothing: it replaces a broken one, or drops aliases."""
        return self.rollout.generation == 0 and (self.etag is not None or self.found != self.rollout.aliases)


class Mirror:
    """Reads the rollouts of one store, and lets MLflow's aliases follow them.

    Args:
        registry: Registry of versions.
        store: Store of rollouts.
        author: Author of changes.
        clock: Current time, seconds since the epoch.
    """

    def __init__(
        self, registry: Registry, store: PromptStore, author: Author, clock: Callable[[], float] = time.time
    ) -> None:
        self._registry, self._store = registry, store
        self._author, self._clock = author, clock
        self.log = AuditLog(store, clock)
        self.approvals = Approvals(store, self.log)

    def load(self, task: str, *, takes_in: bool = False, mends: bool = False) -> Loaded:
        """The rollout, with moves made in MLflow's page.

        The rollout is read before the aliases: whatever changes it in between makes the next write fail.

        Args:
            task: Name of the task.
            takes_in: Whether these moves are written.
            mends: Whether a rollout that cannot be read counts as one that was lost.

        Raises:
            RegistryError: There is no such task; or MLflow cannot be reached, and is needed.
            StoreError: The rollout cannot be read.
        """
        for _ in range(MAX_TRIES):
            etag, stored = None, None
            try:
                stored = self._store.read_rollout(task)
            except BrokenRolloutError as error:
                if not mends:
                    raise
                _logger.warning("task %s: its rollout is written anew: %s", task, error)
                etag = error.etag
            view = self._look(task, is_needed=stored is None)
            if view is None:
                assert stored is not None
                return Loaded(rollout=stored[0], etag=stored[1], found=None)
            if stored is None:
                adopted = replace(self._adopt(view, None), rules=self._served_rules(task))
                return Loaded(rollout=adopted, etag=etag, found=view.written)
            rollout, etag = stored
            moved = self._moved(rollout, view)
            if moved == rollout or not takes_in:
                return Loaded(rollout=moved, etag=etag, found=view.written)
            # Its author is not known: the user of this process has only found it.
            moved = logged(self.log, rollout, moved, user="")
            try:
                etag = self._store.write_rollout(moved, etag)
            except ObjectConflict:
                continue
            _logger.warning("task %s: %s", task, moved.change.reason)
            return Loaded(rollout=moved, etag=etag, found=view.written)
        raise RegistryError(f"task {task!r} is changed by others all the time; run the command again")

    def _look(self, task: str, *, is_needed: bool) -> ModelView | None:
        """The registered model; None if MLflow cannot be reached and is not needed.

        Raises:
            RegistryError: There is no such task.
        """
        try:
            view = self._registry.view(task)
        except RegistryDown as error:
            if is_needed:
                raise
            _logger.warning("%s; moves made in MLflow's own page are not seen now", error)
            return None
        if view is None:
            raise self._registry.no_such_task(task)
        return view

    def _moved(self, rollout: Rollout, view: ModelView) -> Rollout:
        """The rollout with the moves that were made in MLflow's page."""
        if rollout.model_ms != view.created_ms:
            # The model was deleted and made again: its versions are others.
            adopted = self._adopt(view, rollout)
            return replace(adopted, trail=rollout.trail, rules=rollout.rules)
        aliases = take_in(rollout, _without_gone(view, rollout.aliases), self._clock())
        if aliases == rollout.aliases:
            return rollout
        finder = VersionFinder(self._registry, rollout, {})
        reason = _describe(rollout.aliases, aliases)
        set_right = _taken_back(rollout.aliases, aliases)
        if set_right != aliases and self.approvals.requires(rollout.task):
            # Its author is not known, so it is not known either whether another person has approved.
            aliases = set_right
            reason += "; the task needs approvals, so what serves is set right: ask with `ship promote`"
        versions = {version: finder(version) for version in set(aliases.versions.values())}
        # What was wanted before was in MLflow, and no mirror is late with it: a person may move it back.
        return replace(
            rollout.changed(aliases, versions, self.new_change("mlflow", by=UNKNOWN, reason=reason)),
            mirrored=view.standing,
            earlier=rollout.earlier,
        )

    def _served_rules(self, task: str) -> Mapping[str, str]:
        """Decision rules of the versions that serve: all that is left of them where a rollout was lost."""
        try:
            stored = self._store.read_catalog()
        except StoreError as error:
            _logger.warning("task %s: rules of its versions cannot be told from the catalog: %s", task, error)
            return {}
        standing = None if stored is None else stored[0].find(task)
        return {} if standing is None else standing.rules

    def _adopt(self, view: ModelView, before: Rollout | None) -> Rollout:
        """The rollout of a model that has none, or only that of a model that was deleted."""
        finder = VersionFinder(self._registry, None, {}, view.task)
        aliases, reason = view.standing, "aliases as they were in MLflow"
        if before is not None and self.approvals.requires(view.task):
            served = _served_before(before)
            unknown = [
                name
                for name in _SERVING
                if name in aliases.versions and finder(aliases.versions[name]).digest not in served
            ]
            if unknown:
                aliases = aliases.moved(dict.fromkeys(unknown))
                named = " and ".join(f"@{name}" for name in unknown)
                reason += f", without {named}: the task needs approvals, and nothing tells that it served"
        change = self.new_change("mlflow", by=UNKNOWN, reason=reason)
        return Rollout(
            task=view.task,
            model_ms=view.created_ms,
            generation=0 if before is None else before.generation + 1,
            aliases=aliases,
            mirrored=view.standing,
            versions={version: finder(version) for version in sorted(set(aliases.versions.values()))},
            change=change,
        )

    def follow(self, loaded: Loaded) -> Rollout:
        """Log what waits for it, and let MLflow's aliases follow, until they are those of the rollout then.

        Raises:
            RegistryError: MLflow cannot be reached, or refuses.
        """
        rollout, etag, found = loaded.rollout, loaded.etag, loaded.found
        for _ in range(MAX_TRIES):
            task = rollout.task
            settled = self._logged(rollout)
            if found is None:
                view = self._registry.view(task)
                if view is None:
                    raise self._registry.no_such_task(task)
                found = view.written
            self._note_since(rollout, found)
            reached = self._move_aliases(task, found, rollout.aliases)
            if settled is rollout and rollout.mirrored == found == reached:
                return rollout
            confirmed = replace(settled, mirrored=reached)
            try:
                self._store.write_rollout(confirmed, etag)
                return confirmed
            except ObjectConflict:
                # Changed meanwhile: what was written here may be late, so the newer one is written again.
                stored = self._store.read_rollout(task)
                if stored is None:
                    return confirmed
                (rollout, etag), found = stored, None
        return rollout

    def _logged(self, rollout: Rollout) -> Rollout:
        """The rollout once what waits in its trail is logged; as it is, if the log cannot be written now."""
        try:
            return self.log.settle(rollout)
        except StoreError as error:
            _logger.warning("a change of task %s waits for the audit log: %s", rollout.task, error)
            return rollout

    def _note_since(self, rollout: Rollout, found: Aliases) -> None:
        """Note when a new champion began to serve, before its alias is moved."""
        champion = rollout.version(CHAMPION)
        # One that was made champion in MLflow's own page has its alias already.
        is_new = champion != found.versions.get(CHAMPION) or rollout.change.kind == "mlflow"
        if champion is not None and rollout.champion_s is not None and is_new:
            self._registry.set_since(rollout.task, since_tag(champion, rollout.champion_s))

    def _move_aliases(self, task: str, found: Aliases, wanted: Aliases) -> Aliases:
        """Bring MLflow's aliases in line, the champion's last; returns them as they are then."""
        registry, gone = self._registry, dict[str, int | None]()
        if found.share != wanted.share and wanted.share is not None:
            registry.set_share(task, wanted.share)
        for alias in sorted({*found.versions, *wanted.versions}, key=lambda name: (name == CHAMPION, name)):
            version = wanted.versions.get(alias)
            if version == found.versions.get(alias):
                continue
            try:
                if version is None:
                    registry.drop_alias(task, alias)
                else:
                    registry.set_alias(task, alias, version)
            except NotRegisteredError as error:
                # The version was deleted in MLflow. Its artifact may serve all the same.
                _logger.warning("task %s has no @%s in MLflow: %s", task, alias, error)
                gone[alias] = None
                if alias in found.versions:
                    registry.drop_alias(task, alias)
            except RegistryError as error:
                if alias == CHAMPION or isinstance(error, RegistryDown):
                    raise
                # Such as a name that MLflow's pages do not take: the champion's alias must not wait for it.
                _logger.warning("task %s: @%s stays as it is in MLflow: %s", task, ascii(alias), error)
                gone[alias] = found.versions.get(alias)
        if found.share is not None and wanted.share is None:
            registry.set_share(task, None)
        return wanted.moved(gone)

    def new_change(self, kind: ChangeKind, *, by: str | None = None, reason: str | None = None) -> Change:
        """A change that is made now.

        Args:
            kind: Kind of change.
            by: Name of its author; by default the one of all changes.
            reason: Its reason; by default the author's.
        """
        return Change(
            kind=kind,
            by=by or self._author.by,
            host=self._author.host,
            time_s=self._clock(),
            reason=shortened(self._author.reason if reason is None else reason),
            change_id=uuid.uuid4().hex,
        )


class VersionFinder:
    """Digest and time of publication of versions, from the rollout where it has them.

    Args:
        registry: Registry of versions.
        rollout: The rollout, if there is one.
        known: Versions that have just been registered.
        task: Name of the task, where there is no rollout.
    """

    def __init__(
        self,
        registry: Registry,
        rollout: Rollout | None,
        known: Mapping[int, VersionRef],
        task: str | None = None,
    ) -> None:
        self._registry = registry
        self._task = task if rollout is None else rollout.task
        self._known = {**({} if rollout is None else rollout.versions), **known}

    def __call__(self, version: int) -> VersionRef:
        """The version's digest and time.

        Raises:
            RegistryError: There is no such version.
        """
        if version not in self._known:
            assert self._task is not None
            self._known[version] = ref_of(self._registry.version(self._task, version))
        return self._known[version]


def ref_of(info: VersionInfo) -> VersionRef:
    """A registered version as a rollout names it."""
    return VersionRef(digest=info.digest, published_s=info.published_s)


def _without_gone(view: ModelView, wanted: Aliases) -> Aliases:
    """Aliases in MLflow, those at versions that are gone as they are wanted: to delete one is no move."""
    share = wanted.share if CANARY in view.broken else view.standing.share
    return view.standing.moved({alias: wanted.versions.get(alias) for alias in view.broken}, share=share)


def _taken_back(before: Aliases, after: Aliases) -> Aliases:
    """The moved aliases without new versions that serve, or that a rollback would let serve."""
    old = {
        name: before.versions.get(name)
        for name in _SERVING
        if after.versions.get(name) not in (None, before.versions.get(name))
    }
    return after.moved(old)


def _served_before(rollout: Rollout) -> frozenset[str | None]:
    """Artifacts that serve or have served by a rollout."""
    versions = map(rollout.version, _SERVING)
    return frozenset(rollout.versions[version].digest for version in versions if version is not None)


def _describe(before: Aliases, after: Aliases) -> str:
    """The moves between two states, in words."""
    names = sorted({*before.versions, *after.versions})
    moves = [
        f"@{name} from {name_version(before.versions.get(name))} to {name_version(after.versions.get(name))}"
        for name in names
        if before.versions.get(name) != after.versions.get(name)
    ]
    if before.share != after.share:
        moves.append(f"the canary's share from {before.share} to {after.share}")
    return f"moved in MLflow's own page: {', '.join(moves)}"
