"""Changes of a task's rollout: promotions, rollbacks, canaries, shadows, rules and the gate's decisions.

Each is one conditional write of the task's rollout in the store, decided on the rollout as it is and decided
again if another writer was faster. MLflow's aliases follow: a mirror that fails, or is ended half-way, is
made up for by the next command, or by the poller. Moves made in MLflow's own page are taken in first.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from orchestrator.errors import ObjectConflict, RegistryError, StoreError
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.mirror import (
    MAX_TRIES,
    UNKNOWN,
    Author,
    Loaded,
    Mirror,
    VersionFinder,
    ref_of,
    shortened,
)
from orchestrator.registry.moves import challenge, promote
from orchestrator.registry.ownership import ForeignRegistryError, check_owner
from orchestrator.registry.registry import Registry, RegistryDown, RegistryMissing
from orchestrator.registry.versions import (
    CANARY,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    SHADOW,
    Promotion,
    Trials,
    VersionInfo,
    read_trials,
)
from orchestrator.store.documents.rollout import Aliases, Change, ChangeKind, Rollout, VersionRef
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Rollouts"]

_logger = logging.getLogger(__name__)


class Rollouts:
    """Changes the rollouts of one store, and lets its registry follow.

    Methods raise ``RegistryError`` when a change is refused, ``StoreError`` when the store fails. Without
    MLflow (``RegistryDown``) only versions that have an alias can be moved; the aliases follow later.

    Args:
        registry: Registry of versions.
        store: Store of rollouts.
        author: Author of the changes; by default the user of this process.
        clock: Current time, seconds since the epoch.
    """

    def __init__(
        self,
        registry: Registry,
        store: PromptStore,
        author: Author | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry, self._store = registry, store
        self._mirror = Mirror(registry, store, author or Author.of_process(), clock)
        self._is_owner = False

    def read(self, task: str) -> Rollout:
        """The rollout of a task, moves made in MLflow's page included; nothing is written.

        Raises:
            RegistryError: There is no such task.
        """
        return self._mirror.load(task).rollout

    def last_change(self, task: str) -> Change | None:
        """The last change of a task's rollout; None of one that was never changed here."""
        stored = self._store.read_rollout(task)
        return None if stored is None else stored[0].change

    def promote(self, task: str, version: int | None = None) -> Promotion:
        """Serve a version from now on; the champion before it becomes ``previous``.

        Args:
            task: Name of the task.
            version: Version to serve; None for the challenger.

        Raises:
            RegistryError: There is no such task or version, or no challenger.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Aliases:
            wanted = rollout.version(CHALLENGER) if version is None else version
            if wanted is None:
                raise RegistryError(
                    f"task {task!r} has no challenger to promote; name a version: "
                    f"{self._registry.listed_versions(task)}"
                )
            return promote(rollout, wanted, ref(wanted).digest)

        before, after = self._change(task, "promote", decide)
        return _promotion(before, after)

    def rollback(self, task: str) -> Promotion:
        """Serve the previous champion again; a second rollback undoes the first.

        One that was interrupted before MLflow followed is completed by repeating it, and not undone.

        Raises:
            RegistryError: There is no such task, or it has had one champion only.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Aliases:
            if rollout.change.kind == "rollback" and not rollout.is_mirrored:
                return rollout.aliases
            previous = rollout.version(PREVIOUS)
            if previous is None or rollout.digest(PREVIOUS) == rollout.digest(CHAMPION):
                raise RegistryError(
                    f"task {task!r} has no previous champion to go back to; promote one of its versions: "
                    f"{self._registry.listed_versions(task)}"
                )
            return promote(rollout, previous, ref(previous).digest)

        before, after = self._change(task, "rollback", decide)
        return _promotion(before, after)

    def start_canary(self, task: str, version: int, share: float) -> Trials:
        """Let a version take a share of the requests, above 0 and below 1, in place of the canary before it.

        Raises:
            RegistryError: It is the champion, or has no artifact of ours; or there is no champion.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Aliases:
            _check_trial(rollout, version, ref)
            return rollout.aliases.moved(share=share, **{CANARY: version})

        return read_trials(self._change(task, "canary", decide)[1].aliases)

    def start_shadow(self, task: str, version: int) -> Trials:
        """Ask a version beside the champion, in place of the shadow before it.

        Raises:
            RegistryError: It is the champion, or has no artifact of ours; or there is no champion.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Aliases:
            _check_trial(rollout, version, ref)
            return rollout.aliases.moved(**{SHADOW: version})

        return read_trials(self._change(task, "shadow", decide)[1].aliases)

    def stop_canary(self, task: str, version: int | None = None) -> Trials:
        """Let the champion answer all requests; returns what was tried before.

        Args:
            task: Name of the task.
            version: Expected canary; None for any.

        Raises:
            RegistryError: Another version is the canary.
        """

        def decide(rollout: Rollout, _: VersionFinder) -> Aliases:
            found = rollout.version(CANARY)
            if None not in (version, found) and found != version:
                raise RegistryError(
                    f"the canary of task {task!r} is version {found}, not {version}: nothing was changed; "
                    f"`ship canary {task} --stop` ends it"
                )
            return rollout.aliases.moved(**{CANARY: None})

        return read_trials(self._change(task, "stop-canary", decide)[0].aliases)

    def stop_shadow(self, task: str) -> Trials:
        """Ask the champion alone; returns what was tried before."""
        before, _ = self._change(
            task, "stop-shadow", lambda rollout, _: rollout.aliases.moved(**{SHADOW: None})
        )
        return read_trials(before.aliases)

    def admit(
        self, task: str, candidate: VersionInfo, judge: Callable[[VersionInfo | None], GateDecision]
    ) -> GateDecision:
        """Apply the gate's decision to a version that was just registered.

        The decision is made against the champion of the generation that it changes: if a person or another
        gate was faster, it is made again. A version that was published before the champion never replaces
        it: its record has waited somewhere.

        Args:
            task: Name of the task.
            candidate: The version.
            judge: The gate's decision, given today's champion.

        Raises:
            RegistryDown: MLflow cannot be reached; repeat it later.
        """
        found: list[GateDecision] = []

        def decide(rollout: Rollout, _: VersionFinder) -> Aliases:
            champion = rollout.version(CHAMPION)
            if champion is not None and rollout.digest(CHAMPION) == candidate.digest:
                # An earlier try ended between the decision and its record, or a person was faster.
                found.append(GateDecision(promote=True, reason="It was made champion before this was noted."))
                return rollout.aliases
            decision = judge(None if champion is None else self._registry.version(task, champion))
            if champion is not None and candidate.published_s < rollout.versions[champion].published_s:
                decision = GateDecision(
                    promote=False,
                    reason=f"It was published before today's champion, version {champion}; {decision.reason}",
                )
            found.append(decision)
            if decision.promote:
                return promote(rollout, candidate.version, candidate.digest)
            return challenge(rollout, candidate.version, candidate.published_s)

        self._change(
            task,
            "gate",
            decide,
            known={candidate.version: ref_of(candidate)},
            reason=lambda: found[-1].reason,
            must_mirror=True,
        )
        return found[-1]

    def set_rule(
        self, task: str, version: int, artifact: str, rule: str | None, *, instead_of: str | None
    ) -> Rollout:
        """Let a version decide by another rule from now on; the version takes it along when it is promoted.

        Args:
            task: Name of the task.
            version: The version.
            artifact: Digest of the version's artifact, which the rule was chosen for.
            rule: Digest of the rule, which is in the store; None for the artifact's own rule.
            instead_of: Digest of the rule that it was chosen in place of; None for the artifact's own.

        Returns:
            The rollout after the change.

        Raises:
            RegistryError: There is no such task or version, or its rule was changed meanwhile.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Aliases:
            found = rollout.rules.get(artifact)
            if ref(version).digest != artifact or found not in (instead_of, rule):
                raise RegistryError(
                    f"version {version} of task {task!r} was changed meanwhile; look at its rule with "
                    f"`ship threshold {task} --version {version}`, and repeat the change"
                )
            return rollout.aliases

        return self._change(task, "threshold", decide, rule=(artifact, rule))[1]

    def settle(self, task: str) -> Rollout:
        """Take in moves made in MLflow's page, and let MLflow follow the rollout.

        Raises:
            RegistryError: There is no such task.
        """
        loaded = self._mirror.load(task, takes_in=True)
        return self._mirror.follow(loaded) if loaded.etag is not None else loaded.rollout

    def drop(self, task: str) -> None:
        """Take a task whose model was deleted in MLflow out of service; its rollout starts anew."""
        stored = self._store.read_rollout(task)
        if stored is None or not stored[0].aliases.versions:
            return
        rollout, etag = stored
        change = self._mirror.new_change("drop", by=UNKNOWN, reason="its model was deleted in MLflow")
        gone = rollout.changed(Aliases(), {}, change)
        self._store.write_rollout(replace(gone, mirrored=Aliases(), earlier=()), etag)

    def _change(
        self,
        task: str,
        kind: ChangeKind,
        decide: Callable[[Rollout, VersionFinder], Aliases],
        *,
        known: Mapping[int, VersionRef] | None = None,
        reason: Callable[[], str] | None = None,
        must_mirror: bool = False,
        rule: tuple[str, str | None] | None = None,
    ) -> tuple[Rollout, Rollout]:
        """Write one change, and let MLflow follow; returns the rollout before and after it.

        Args:
            task: Name of the task.
            kind: Kind of change.
            decide: The aliases that are wanted, given the rollout as it is now; asked again after a conflict.
            known: Versions that have just been registered.
            reason: Reason of the change, asked after the decision.
            must_mirror: Whether the change has failed if MLflow does not follow now.
            rule: Digests of an artifact and of its rule from now on, None for its own.
        """
        self._check_owner()
        change = self._mirror.new_change(kind)
        before: Rollout | None = None
        for _ in range(MAX_TRIES):
            loaded = self._mirror.load(task, takes_in=True)
            if loaded.rollout.has_change(change.change_id):
                # Written by the try before, whose answer was lost.
                break
            before = loaded.rollout
            find = VersionFinder(self._registry, before, known or {})
            aliases = decide(before, find)
            ruled = before if rule is None else before.with_rule(*rule)
            if aliases == before.aliases and ruled.rules == before.rules:
                break
            named = replace(change, reason=shortened(reason() if reason else change.reason))
            after = ruled.changed(aliases, {at: find(at) for at in set(aliases.versions.values())}, named)
            if (etag := self._write(after, loaded.etag)) is not None:
                loaded = replace(loaded, rollout=after, etag=etag)
                break
        else:
            raise RegistryError(f"task {task!r} is changed by others all the time; run the command again")
        assert before is not None
        self._follow(loaded, must_mirror=must_mirror)
        return before, loaded.rollout

    def _write(self, rollout: Rollout, if_match: str | None) -> str | None:
        """Etag of the rollout that was written; None if it has to be read and decided again."""
        try:
            return self._store.write_rollout(rollout, if_match)
        except ObjectConflict:
            return None
        except StoreError:
            stored = self._store.read_rollout(rollout.task)
            if stored is None or not stored[0].has_change(rollout.change.change_id):
                raise
            # It was written, and the answer was lost.
            return None

    def _follow(self, loaded: Loaded, *, must_mirror: bool) -> None:
        if loaded.etag is None:
            return
        try:
            self._mirror.follow(loaded)
        except (RegistryError, StoreError) as error:
            if must_mirror:
                raise
            _logger.warning(
                "task %s is changed, and the endpoint follows; MLflow's aliases do once they can be set: %s",
                loaded.rollout.task,
                error,
            )

    def _check_owner(self) -> None:
        if self._is_owner:
            return
        try:
            check_owner(self._store, self._registry)
        except (RegistryMissing, ForeignRegistryError):
            raise
        except RegistryDown as error:
            # A rollback must not wait for MLflow: the poller that brings it in line checks again.
            if self._store.read_owner() is None:
                raise
            _logger.warning("%s; the change is made in the store", error)
            return
        self._is_owner = True


def _promotion(before: Rollout, after: Rollout) -> Promotion:
    to_version = after.version(CHAMPION)
    assert to_version is not None
    return Promotion(task=after.task, from_version=before.version(CHAMPION), to_version=to_version)


def _check_trial(rollout: Rollout, version: int, ref: VersionFinder) -> None:
    """Refuse to try a version that answers already, or cannot."""
    task, champion = rollout.task, rollout.version(CHAMPION)
    if champion is None:
        raise RegistryError(
            f"task {task!r} has no champion to try a version beside; `ship promote {task} {version}` makes "
            "it the first"
        )
    if champion == version:
        raise RegistryError(
            f"version {version} of task {task!r} is its champion and answers already; name another one"
        )
    if ref(version).digest is None:
        raise RegistryError(
            f"version {version} of task {task!r} names no artifact of ours, so it cannot be served; name one "
            "that `ship tune` registered"
        )
