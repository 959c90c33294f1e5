"""Promotions that wait for a second person's approval: made, dropped and listed."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from orchestrator.errors import RegistryError
from orchestrator.registry.mirror import VersionFinder
from orchestrator.registry.moves import is_void, promote, promotion
from orchestrator.registry.registry import Registry
from orchestrator.registry.rollout_writer import RolloutWriter
from orchestrator.registry.versions import CHALLENGER, CHAMPION, GATE_TAG, Promotion, name_version
from orchestrator.store.approvals import read_rules
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.rollout import Pending, Rollout
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Requests"]

NUM_READERS = 16


class Requests:
    """Promotions of one store that wait; they are asked for by ``Rollouts.promote`` and by the gate.

    Methods raise ``RegistryError`` when a change is refused, ``StoreError`` when the store fails.

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

    def approve(self, task: str, version: int | None = None) -> Promotion:
        """Make the promotion that waits, which another person has asked for.

        Args:
            task: Name of the task.
            version: The version that is meant; None for the one that waits.

        Raises:
            RegistryError: None waits, or another version, or it is void, or this author asked for it; or the
                rule that the gate's version was to keep to is another one meanwhile.
        """
        change = self._writer.mirror.new_change("approve")

        def decide(rollout: Rollout, ref: VersionFinder) -> Rollout:
            pending = _pending_of(rollout, version)
            digest = ref(pending.version).digest
            _check_valid(rollout, pending, digest)
            if pending.request.by.casefold() == change.by.casefold():
                raise RegistryError(
                    f"{pending.request.by} asked to promote version {pending.version} of task {task!r}, and "
                    "another person has to approve it; where people share a user, `--as NAME` says who it is"
                )
            self._check_rule(rollout, pending)
            return promote(rollout, pending.version, digest)

        before, after = self._writer.write(task, change, decide)
        if before.pending is not None and before.pending.request.kind == "gate":
            # Later versions are compared with the best that has served: this one has passed the gate.
            with suppress(RegistryError):
                self._registry.tag_version(task, before.pending.version, {GATE_TAG: CHAMPION})
        return promotion(before, after)

    def reject(self, task: str, version: int | None = None) -> Pending:
        """Drop the promotion that waits, if it is of ``version``; returns it.

        Raises:
            RegistryError: None waits, or another version.
        """

        def decide(rollout: Rollout, _: VersionFinder) -> Rollout:
            _pending_of(rollout, version)
            return replace(rollout, pending=None)

        return _pending_of(self._writer.write(task, self._writer.mirror.new_change("reject"), decide)[0])

    def withhold(self, task: str, version: int) -> None:
        """Decide that a version is not to serve: it is no challenger any more, and no request for it waits.

        Raises:
            RegistryError: It serves, or nothing of it waits.
        """

        def decide(rollout: Rollout, _: VersionFinder) -> Rollout:
            if rollout.version(CHAMPION) == version:
                raise RegistryError(
                    f"version {version} of task {task!r} serves; `ship rollback {task}` goes back to the one "
                    "before"
                )
            pending, is_challenger = rollout.pending, rollout.version(CHALLENGER) == version
            if not is_challenger and (pending is None or pending.version != version):
                raise RegistryError(
                    f"version {version} of task {task!r} does not wait for a decision: it is not the "
                    "challenger, and nobody has asked for it"
                )
            moved: dict[str, int | None] = {CHALLENGER: None} if is_challenger else {}
            kept = None if pending is not None and pending.version == version else pending
            return replace(rollout, aliases=rollout.aliases.moved(moved), pending=kept)

        told = {"withheld": {"version": version}}
        self._writer.write(task, self._writer.mirror.new_change("reject"), decide, told=told)

    def pending(self, tasks: Iterable[str]) -> dict[str, Rollout]:
        """Rollouts of those of ``tasks`` that have a promotion that waits, or one that is void, by task."""
        rules = read_rules(self._store.objects)
        with ThreadPoolExecutor(NUM_READERS) as readers:
            found = readers.map(self._store.read_rollout, filter(rules.requires, tasks))
            return {stored[0].task: stored[0] for stored in found if stored and stored[0].pending}

    def _check_rule(self, rollout: Rollout, pending: Pending) -> None:
        """Check that the champion's rule is not newer than what the gate's version has inherited of it."""
        champion = rollout.version(CHAMPION)
        if champion is None or pending.request.kind != "gate":
            return
        inherited_s = max(pending.request.time_s, self._set_s(rollout, pending.digest))
        if self._set_s(rollout, rollout.versions[champion].digest) > inherited_s:
            raise RegistryError(
                f"the rule of version {champion} of task {rollout.task!r} was set after version "
                f"{pending.version} had passed the gate with the rule before: set that version's own with "
                f"`ship threshold {rollout.task} --version {pending.version}`, and approve it then"
            )

    def _set_s(self, rollout: Rollout, artifact: str | None) -> float:
        """When the rule of an artifact was set, seconds since the epoch; 0 for the artifact's own rule."""
        rule = rollout.rules.get(artifact or "")
        return 0.0 if rule is None else self._store.rules.read(rule).time_s


def _check_valid(rollout: Rollout, pending: Pending, digest: str | None) -> None:
    """Check that a request is about what it was made about: the artifact, and the champion before it."""
    why = None
    if is_void(rollout):
        then, now = name_version(pending.champion), name_version(rollout.version(CHAMPION))
        why = f"when {then} served, and {now} serves now"
    elif digest != pending.digest:
        asked, found = str(pending.digest)[:12], str(digest)[:12]
        why = f"for artifact {asked}, and MLflow has {found} under that number now"
    if why is not None:
        raise RegistryError(
            f"the request to promote version {pending.version} of task {rollout.task!r} is void: it was made "
            f"{why}; ask again with `ship promote {rollout.task} {pending.version}`"
        )


def _pending_of(rollout: Rollout, version: int | None = None) -> Pending:
    """The promotion that waits, which has to be of ``version`` if that is given."""
    if rollout.pending is None:
        raise RegistryError(
            f"no promotion of task {rollout.task!r} waits for an approval; `ship show {rollout.task}` shows "
            "its last change"
        )
    if version not in (None, rollout.pending.version):
        raise RegistryError(
            f"the promotion of task {rollout.task!r} that waits is of version {rollout.pending.version} by "
            f"now, not of version {version}; nothing was changed"
        )
    return rollout.pending
