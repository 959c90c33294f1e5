"""Changes of a task's rollout: promotions, rollbacks, canaries, shadows, rules and the gate's decisions.

Each is one conditional write of the task's rollout in the store, decided on the rollout as it is and decided
again if another writer was faster. MLflow's aliases follow: a mirror that fails, or is ended half-way, is
made up for by the next command, or by the poller. Moves made in MLflow's own page are taken in first.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any, Literal

from orchestrator.errors import RegistryError
from orchestrator.registry.changes import logged
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.mirror import VersionFinder, ref_of
from orchestrator.registry.moves import (
    ask,
    ask_for_gate,
    challenge,
    promote,
    promotion,
    retire,
    retired_version,
)
from orchestrator.registry.refusals import check_fit, check_trial
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollout_writer import RolloutWriter
from orchestrator.registry.session import NotRegisteredError
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
from orchestrator.store.documents.audit import UNKNOWN, Author, shortened
from orchestrator.store.documents.rollout import Aliases, Rollout
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Rollouts"]

Judge = Callable[[VersionInfo | None, str | None], GateDecision]
# Of MLflow's server and of the hosts that write the log.
_CLOCKS_DIFFER_S = 3600.0


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
        self._writer = RolloutWriter(registry, store, author or Author.of_process(), clock)
        self._mirror = self._writer.mirror

    @property
    def writer(self) -> RolloutWriter:
        """Writes single changes."""
        return self._writer

    def read(self, task: str) -> Rollout:
        """The rollout of a task, moves made in MLflow's page included; nothing is written.

        Raises:
            RegistryError: There is no such task.
        """
        return self._mirror.load(task).rollout

    def stored(self, task: str) -> Rollout | None:
        """The rollout of a task as it is in the store; None of one that was never changed here."""
        stored = self._store.read_rollout(task)
        return None if stored is None else stored[0]

    def promote(self, task: str, version: int | None = None, *, force: bool = False) -> Promotion:
        """Serve a version from now on; the champion before it becomes ``previous``.

        Where the task needs an approval it waits for that, see ``Requests``.

        Args:
            task: Name of the task.
            version: Version to serve; None for the challenger, or of a retired task for the one that served.
            force: Serve it also if the gate refused it, or if it is of another backbone than the champions.

        Raises:
            RegistryError: There is no such task or version, or no challenger, or it takes force.
        """
        change = self._mirror.new_change("promote")
        asked: list[int] = []

        def decide(rollout: Rollout, ref: VersionFinder) -> Rollout:
            standing = retired_version(rollout.aliases) or rollout.version(CHALLENGER)
            wanted = standing if version is None else version
            if wanted is None:
                raise RegistryError(
                    f"task {task!r} has no challenger to promote; name a version: "
                    f"{self._registry.listed_versions(task)}"
                )
            asked.append(wanted)
            if not force:
                check_fit(self._registry, rollout, wanted, "promote")
            digest = ref(wanted).digest
            if rollout.version(CHAMPION) != wanted and self._mirror.approvals.requires(task):
                return replace(rollout, pending=ask(rollout, wanted, digest, change))
            return promote(rollout, wanted, digest)

        before, after = self._writer.write(task, change, decide, told={"forced": True} if force else None)
        return promotion(before, after, asked[-1])

    def rollback(self, task: str) -> Promotion:
        """Serve the previous champion again; a second rollback undoes the first.

        Of a retired task the version that served comes back.

        One that was interrupted before MLflow followed is completed by repeating it, and not undone.

        Raises:
            RegistryError: There is no such task, or it has had one champion only.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Rollout:
            if rollout.change.kind == "rollback" and not rollout.is_mirrored:
                return rollout
            if (retired := retired_version(rollout.aliases)) is not None:
                return promote(rollout, retired, ref(retired).digest)
            previous = rollout.version(PREVIOUS)
            if previous is None or rollout.digest(PREVIOUS) == rollout.digest(CHAMPION):
                raise RegistryError(
                    f"task {task!r} has no previous champion to go back to; promote one of its versions: "
                    f"{self._registry.listed_versions(task)}"
                )
            return promote(rollout, previous, ref(previous).digest)

        return promotion(*self._writer.write(task, self._mirror.new_change("rollback"), decide))

    def retire(self, task: str) -> int:
        """Take a task out of service; returns the version that served.

        It keeps its versions, and ``promote`` brings it back; a new version that is tuned of it waits. What
        was interrupted is completed by repeating it.

        Raises:
            RegistryError: There is no such task, or it has no champion.
        """

        def decide(rollout: Rollout, _: VersionFinder) -> Rollout:
            if retired_version(rollout.aliases) is not None:
                return rollout
            if rollout.version(CHAMPION) is None:
                raise RegistryError(
                    f"task {task!r} has no champion, so nothing of it serves; leave it out of the manifest "
                    "to tune it no more"
                )
            return retire(rollout)

        after = self._writer.write(task, self._mirror.new_change("retire"), decide)[1]
        if (version := retired_version(after.aliases)) is None:
            raise RegistryError(f"task {task!r} was brought back at the same time; see `ship show {task}`")
        return version

    def start_canary(self, task: str, version: int, share: float, *, force: bool = False) -> Trials:
        """Let a version take a share of the requests, in place of the canary before it.

        Args:
            task: Name of the task.
            version: The version.
            share: Its share of the requests, above 0 and below 1.
            force: As for ``promote``: a canary's answers count.

        Raises:
            RegistryError: It is the champion, has no artifact of ours or takes force; or none serves.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Rollout:
            check_trial(rollout, version, ref)
            if not force and rollout.version(CANARY) != version:
                check_fit(self._registry, rollout, version, "canary")
            return _moved(rollout, CANARY, version, share)

        change, told = self._mirror.new_change("canary"), {"forced": True} if force else None
        return read_trials(self._writer.write(task, change, decide, told=told)[1].aliases)

    def start_shadow(self, task: str, version: int) -> Trials:
        """Ask a version beside the champion, in place of the shadow before it.

        Raises:
            RegistryError: It is the champion, or has no artifact of ours; or there is no champion.
        """

        def decide(rollout: Rollout, ref: VersionFinder) -> Rollout:
            check_trial(rollout, version, ref)
            return _moved(rollout, SHADOW, version)

        return read_trials(self._writer.write(task, self._mirror.new_change("shadow"), decide)[1].aliases)

    def stop_canary(self, task: str, version: int | None = None) -> Trials:
        """Let the champion answer all requests; returns what was tried before.

        Args:
            task: Name of the task.
            version: Expected canary; None for any.

        Raises:
            RegistryError: Another version is the canary.
        """

        def decide(rollout: Rollout, _: VersionFinder) -> Rollout:
            found = rollout.version(CANARY)
            if None not in (version, found) and found != version:
                raise RegistryError(
                    f"the canary of task {task!r} is version {found}, not {version}: nothing was changed; "
                    f"`ship canary {task} --stop` ends it"
                )
            return _moved(rollout, CANARY, None)

        return read_trials(
            self._writer.write(task, self._mirror.new_change("stop-canary"), decide)[0].aliases
        )

    def stop_shadow(self, task: str) -> Trials:
        """Ask the champion alone; returns what was tried before."""
        change = self._mirror.new_change("stop-shadow")
        before, _ = self._writer.write(task, change, lambda rollout, _: _moved(rollout, SHADOW, None))
        return read_trials(before.aliases)

    def admit(
        self,
        task: str,
        candidate: VersionInfo,
        judge: Judge,
        *,
        again: bool = False,
    ) -> GateDecision:
        """Apply the gate's decision to a version that was just registered.

        The decision is made against the champion of the generation that it changes: if a person or another
        gate was faster, it is made again. A version that was published before the champion never replaces
        it: its record has waited somewhere. One that has passed waits where the task needs an approval.

        Args:
            task: Name of the task.
            candidate: The version.
            judge: The gate's decision, given the champion and the digest of the rule to keep to, if any.
            again: Whether a person asks for it anew, so that it may be older than the champion.

        Raises:
            RegistryDown: MLflow cannot be reached; repeat it later.
        """
        found: list[GateDecision] = []
        change = self._mirror.new_change("gate")
        judged = {"judged": {"version": candidate.version, "digest": candidate.digest}}

        def decide(rollout: Rollout, _: VersionFinder) -> Rollout:
            if rollout.version(CHAMPION) is not None and rollout.digest(CHAMPION) == candidate.digest:
                # An earlier try ended between the decision and its record, or a person was faster.
                found.append(GateDecision(promote=True, reason="It was made champion before this was noted."))
                return rollout
            decision = self._decide(rollout, candidate, judge, again=again)
            if decision.rule is not None and candidate.digest is not None:
                # One that waits has it, too, for the person who promotes it.
                rollout = rollout.with_rule(candidate.digest, decision.rule)
            if decision.promote and self._mirror.approvals.requires(task):
                request = replace(change, reason=shortened(decision.reason))
                pending, waits = ask_for_gate(rollout, candidate.version, candidate.digest, request)
                rollout = replace(rollout, pending=pending)
                decision = replace(decision, promote=False, reason=f"{decision.reason} {waits}")
            found.append(decision)
            if decision.promote:
                return promote(rollout, candidate.version, candidate.digest)
            return replace(rollout, aliases=challenge(rollout, candidate.version, candidate.published_s))

        before, after = self._writer.write(
            task,
            change,
            decide,
            known={candidate.version: ref_of(candidate)},
            reason=lambda: found[-1].reason,
            told=judged,
            must_mirror=True,
        )
        if before.generation == after.generation:
            self._log_decision(task, candidate, found[-1], judged, again=again)
        return found[-1]

    def log(self, task: str) -> bool:
        """Write changes of a task into the audit log that a command was ended before; whether none waits."""
        stored = self._store.read_rollout(task)
        return stored is None or self._writer.log.follow(*stored, self._store.write_rollout)

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
        gone = replace(rollout.changed(Aliases(), {}, change), mirrored=Aliases(), earlier=(), pending=None)
        gone = logged(self._writer.log, rollout, gone, user="")
        self._writer.log.follow(gone, self._store.write_rollout(gone, etag), self._store.write_rollout)

    def _decide(
        self,
        rollout: Rollout,
        candidate: VersionInfo,
        judge: Judge,
        *,
        again: bool,
    ) -> GateDecision:
        """The gate's decision; a version of a retired task, or one that comes late, does not serve by it."""
        champion, retired = rollout.version(CHAMPION), retired_version(rollout.aliases)
        standing = retired if champion is None else champion
        before = None if standing is None else self._find(rollout, standing)
        rule = None if before is None or before.digest is None else rollout.rules.get(before.digest)
        # A rule that was set for the version itself stays.
        decision = judge(before, None if candidate.digest in rollout.rules else rule)
        if retired is not None:
            command = f"`ship promote {rollout.task} {candidate.version}`"
            waits = f"The task is retired; {command} brings it back with this version; {decision.reason}"
            return replace(decision, promote=False, reason=waits)
        if again:
            return decision
        if champion is not None and candidate.published_s < rollout.versions[champion].published_s:
            late = f"It was published before today's champion, version {champion}; {decision.reason}"
            return replace(decision, promote=False, reason=late, gate=decision.gate or "older")
        return decision

    def _find(self, rollout: Rollout, version: int) -> VersionInfo:
        """A version of the rollout; of one that was deleted in MLflow, what the rollout knows."""
        try:
            return self._registry.version(rollout.task, version)
        except NotRegisteredError:
            ref = rollout.versions[version]
            return VersionInfo(
                version=version,
                digest=ref.digest,
                source="",
                metrics={},
                aliases=(),
                created_s=ref.published_s,
                run_id=None,
            )

    def _log_decision(
        self,
        task: str,
        candidate: VersionInfo,
        decision: GateDecision,
        judged: Mapping[str, Any],
        *,
        again: bool,
    ) -> None:
        """Log a decision that changed nothing, unless an earlier try did."""
        log = self._writer.log
        since_s = math.inf if again else candidate.created_s - _CLOCKS_DIFFER_S
        for entry in takewhile(lambda entry: entry.record.time_s > since_s, log.newest()):
            record = entry.record
            if (record.task, record.action) == (task, "gate") and judged.items() <= record.after.items():
                return
        log.append("gate", task, {}, judged, decision.reason, self._writer.author)


def _moved(
    rollout: Rollout, alias: str, version: int | None, share: float | Literal["same"] = "same"
) -> Rollout:
    return replace(rollout, aliases=rollout.aliases.moved({alias: version}, share=share))
