"""Watches the answers of all ingresses for drift, in the poller's process: bets, alarms, and their object.

Ingresses hand on what they answered every few seconds, in the order of answers; here is one stream for each
task, whichever of them answered. Only answers of a task's champion under its rule count, and either change
begins a new watch.
"""

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from orchestrator.errors import ObjectConflict, OrchestratorError
from orchestrator.serve.drift.sighting import Drift, Sighting
from orchestrator.store.documents.catalog import Catalog
from orchestrator.store.documents.drift import Alarm, DriftEntry, DriftStates
from orchestrator.store.drift import read_drift, write_drift
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import PromptCard
from ship.artifact.held_out import HeldOut
from ship.decision.rule import DecisionRule
from ship.evaluation.drift import Observation, Reference, Watch

__all__ = ["DriftWatcher", "observe_held_out"]

_log = logging.getLogger(__name__)
# Answers that wait for their watch; more are dropped, and counted.
_MAX_WAITING = 100_000
# References that are read from the store in one look, and the pause before one that failed is read again.
_MAX_READ, _READ_AGAIN_S = 32, 300.0
# Between two writes of what is not urgent, and of tasks that were not watched before.
_WRITE_S, _WRITE_NEW_S = 60.0, 5.0
# Tasks that a page of metrics has.
_MAX_SHOWN = 50


@dataclass(kw_only=True)
class _Watched:
    """One version of a task under one rule.

    Attributes:
        digest: Digest of its artifact.
        rule: Digest of the rule.
        watch: Its watch; None if it is not watched.
        reason: Why it is not watched.
        alarm: The alarm that was raised.
        entry: Its entry as it was read or written last.
        again_s: When its reference is to be read again, which could not be; None if that is known.
    """

    digest: str
    rule: str | None
    watch: Watch | None = None
    reason: str | None = None
    alarm: Alarm | None = None
    entry: DriftEntry | None = None
    again_s: float | None = None


class DriftWatcher:
    """Watches the tasks of one store.

    Args:
        store: The store, of which no other thread uses this object.
        clock: Current time, seconds since the epoch.
    """

    def __init__(self, store: PromptStore, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._waiting: deque[Sighting] = deque()
        self._num_dropped = 0
        self._watched: dict[str, _Watched] = {}
        self._written_s = -_WRITE_S
        self._catalog = Catalog(entries={})
        self._known: tuple[DriftStates, str | None] = DriftStates(), None
        self._drifts: tuple[Drift, ...] = ()
        self._num_alarms = 0

    def see(self, sightings: Sequence[Sighting]) -> None:
        """Take in answers; returns at once. For any thread."""
        with self._lock:
            room = _MAX_WAITING - len(self._waiting)
            self._waiting.extend(sightings[:room])
            self._num_dropped += max(0, len(sightings) - room)

    def describe(self) -> tuple[tuple[Drift, ...], int, int]:
        """Drift of the tasks with the most evidence, number of alarms, and of answers that were dropped."""
        return self._drifts, self._num_alarms, self._num_dropped

    def step(self) -> str | None:
        """Bring the watches up to date, and the object of the store; returns what is wrong, if anything."""
        found = self._store.read_catalog()
        if found is not None:
            self._catalog = found[0]
        states, etag = self._known = read_drift(self._store.objects, self._known)
        self._forget()
        self._take_over(states)
        raised = self._settle(states)
        self._drifts, self._num_alarms = self._summarise(), self._count_alarms()
        now_s = self._clock()
        is_new = any(task not in states.tasks for task in self._watched)
        if not raised and now_s - self._written_s < (_WRITE_NEW_S if is_new else _WRITE_S):
            return None
        after = self._states(states, now_s)
        self._written_s = now_s
        if after.tasks != states.tasks:
            try:
                write_drift(self._store.objects, after, etag)
            except ObjectConflict:
                # A person, or another endpoint; the next look reads what that one wrote.
                self._written_s = now_s - _WRITE_S
        return None

    def _champion(self, task: str) -> tuple[str, str | None] | None:
        entry = self._catalog.entries.get(task)
        return None if entry is None else (entry.digest, entry.rules.get(entry.digest))

    def _forget(self) -> None:
        """Drop the watches of what no longer serves."""
        for task, one in list(self._watched.items()):
            if self._champion(task) != (one.digest, one.rule):
                del self._watched[task]

    def _take_over(self, states: DriftStates) -> None:
        """Follow what persons have done about alarms."""
        for task, one in self._watched.items():
            entry = states.tasks.get(task)
            if entry is None or not entry.is_of(one.digest, one.rule):
                continue
            one.entry = entry
            is_new = one.watch is not None and entry.reference != one.watch.reference
            if is_new and entry.is_accepted and entry.reference is not None:
                one.watch, one.alarm = Watch(entry.reference), None

    def _settle(self, states: DriftStates) -> bool:
        """Take in what waits; whether an alarm was raised."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        by_task: dict[str, list[Sighting]] = defaultdict(list)
        for sighting in waiting:
            if self._champion(sighting.task) == (sighting.digest, sighting.rule):
                by_task[sighting.task].append(sighting)
        num_read, raised = 0, False
        now_s = self._clock()
        for task, sightings in by_task.items():
            known = self._watched.get(task)
            if known is None or (known.again_s is not None and now_s >= known.again_s):
                if num_read == _MAX_READ:
                    self.see(sightings)
                    continue
                num_read += 1
                self._watched[task] = self._begin(task, sightings[0], states)
            raised |= self._observe(self._watched[task], sightings)
        return raised

    def _observe(self, one: _Watched, sightings: Iterable[Sighting]) -> bool:
        if one.watch is None or not one.watch.see([sighting.observed for sighting in sightings]):
            return False
        if one.alarm is not None:
            # Of the time before this process, which a person may have taken note of.
            return False
        at = one.watch.alarm_at or 0
        one.alarm = Alarm(time_s=self._clock(), num_seen=at, signals=one.watch.alarm_signals)
        return True

    def _begin(self, task: str, first: Sighting, states: DriftStates) -> _Watched:
        one = _Watched(digest=first.digest, rule=first.rule)
        entry = states.tasks.get(task)
        if entry is not None and entry.is_of(one.digest, one.rule):
            one.entry, one.alarm = entry, entry.alarm
            if entry.is_accepted and entry.reference is not None:
                one.watch = Watch(entry.reference)
                return one
        try:
            found = self._read_reference(one)
        except OrchestratorError as error:
            # An outage ends; what is damaged is read in vain, and seldom.
            one.again_s = self._clock() + _READ_AGAIN_S
            found = f"its held-out answers cannot be read: {error}"
        if isinstance(found, str):
            one.reason = found
            _log.info("task %s is not watched for drift: %s", task, found)
        else:
            one.watch = Watch(found)
        return one

    def _read_reference(self, one: _Watched) -> Reference | str:
        held_out = self._store.fetch_held_out(one.digest)
        if held_out is None:
            return "the version was tuned by an earlier ship, which kept no held-out answers"
        if one.rule is not None:
            rule = self._store.rules.read(one.rule).rule
        else:
            rule = PromptCard.from_json(self._store.fetch_card(one.digest)).decision
        return Reference.of(observe_held_out(held_out, rule))

    def _entry(self, one: _Watched, now_s: float) -> DriftEntry:
        before = one.entry
        entry = DriftEntry(
            digest=one.digest, rule=one.rule, time_s=now_s, not_watched=one.reason, alarm=one.alarm
        )
        if one.watch is not None:
            entry = replace(
                entry,
                num_seen=one.watch.num_seen,
                evidence=min(one.watch.evidence, 1e6),
                reference=one.watch.reference,
                recent=one.watch.recent if one.watch.num_seen else None,
            )
        if before is not None:
            # Another alarm is another matter.
            acknowledged = before.acknowledged if before.alarm == one.alarm else None
            entry = replace(entry, acknowledged=acknowledged, is_accepted=before.is_accepted)
        return entry

    def _states(self, before: DriftStates, now_s: float) -> DriftStates:
        """All entries as they are to be written; those of other endpoints stay while their version serves."""
        kept = {
            task: entry
            for task, entry in before.tasks.items()
            if task not in self._watched and self._champion(task) == (entry.digest, entry.rule)
        }
        for task, one in self._watched.items():
            old, new = before.tasks.get(task), self._entry(one, now_s)
            same = old is not None and replace(new, time_s=old.time_s) == old
            one.entry = kept[task] = old if same and old is not None else new
        return DriftStates(tasks=kept)

    def _summarise(self) -> tuple[Drift, ...]:
        found = [
            Drift(
                task=task,
                is_alarming=self._is_alarming(one),
                evidence=one.watch.evidence,
                num_seen=one.watch.num_seen,
                unsure=_share(one.watch.recent, "unsure:"),
                far=_share(one.watch.recent, "distance:far1"),
            )
            for task, one in self._watched.items()
            if one.watch is not None
        ]
        found.sort(key=lambda drift: (-drift.is_alarming, -drift.evidence, drift.task))
        return tuple(found[:_MAX_SHOWN])

    def _is_alarming(self, one: _Watched) -> bool:
        if one.alarm is None:
            return False
        entry = one.entry
        return entry is None or entry.alarm != one.alarm or entry.acknowledged is None

    def _count_alarms(self) -> int:
        return Counter(self._is_alarming(one) for one in self._watched.values())[True]


def observe_held_out(held_out: HeldOut, rule: DecisionRule) -> list[Observation]:
    """What a version answers for its held-out pictures under a rule."""
    distances = held_out.distances_B or (None,) * len(held_out)
    found = []
    for logits_C, distance in zip(held_out.logits_BC, distances, strict=True):
        decided = rule.decide(held_out.labels, logits_C, distance)
        top = max(range(len(logits_C)), key=logits_C.__getitem__)
        found.append(
            Observation(
                label=held_out.labels[top],
                is_unsure=decided.because is not None,
                confidence=max(decided.probabilities),
                distance=distance,
            )
        )
    return found


def _share(recent: Reference, mark: str) -> float | None:
    marks = recent.cuts.marks()
    return recent.counts[marks.index(mark)] / recent.num if recent.num and mark in marks else None
