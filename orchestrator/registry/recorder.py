"""The only writer of MLflow, one at a time of all machines. An outage of MLflow never disturbs a tuning.

Every event goes to the spool on disk first. When MLflow cannot be reached they wait there; this process tries
again with longer and longer pauses, and the next command replays what a process left behind. What the store
has as published but was not recorded, because a spool was lost too, is recorded from the artifact itself
(``reconcile``).
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from orchestrator.errors import RegistryError, StoreError
from orchestrator.events import Event
from orchestrator.manifest.floors import Floors
from orchestrator.registry.ownership import ForeignRegistryError
from orchestrator.registry.record_writer import RecordWriter, Redecision
from orchestrator.registry.registry import Registry
from orchestrator.registry.session import RegistryDown
from orchestrator.registry.spool import Spool
from orchestrator.registry.versions import own_tags
from orchestrator.store.documents.publication import Publication
from orchestrator.store.lease import StoreLease
from orchestrator.store.prompt_store import PromptStore
from orchestrator.tracing import span

__all__ = ["Backlog", "Recorder", "TaskKey"]

_logger = logging.getLogger(__name__)
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
# A driver that writes to MLflow neither shows progress nor reads requests to it.
MAX_WRITING_S = 2.0
# A limit for an interrupted driver, too.
MAX_FAREWELL_S = 5.0
# News of a task under way: of a small task all is then written in one go.
NEWS_EVERY_S = 5.0
# Of all recorders of a store, see ``StoreLease``: how long one keeps its turn, at work and with nothing to
# write, and how often the others look.
LEASE = "recorder.json"
TURN_S, IDLE_S, LEASE_LOOK_S = 10.0, 2.0, 1.0
_NEWS = frozenset({"leased", "epoch"})
_ENDS = frozenset({"published", "failed", "cancelled", "tagged"})


class TaskKey(Protocol):
    """The parts of a ``TaskSpec`` that the recorder needs."""

    @property
    def name(self) -> str:
        """Name of the task."""
        ...

    @property
    def key(self) -> str:
        """Task key."""
        ...

    @property
    def floors(self) -> Floors:
        """The least that a version has to reach before it may serve."""
        ...

    @property
    def tags(self) -> Mapping[str, str]:
        """Tags that the manifest gives the task."""
        ...


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Records that MLflow has not taken yet.

    Attributes:
        num_records: Number of records.
        folder: Folder of the spool.
    """

    num_records: int
    folder: Path

    def __str__(self) -> str:
        """A line for people; empty if nothing waits."""
        if not self.num_records:
            return ""
        return (
            f"{self.num_records} records wait in {self.folder} for MLflow; the next command that reaches it "
            "writes them"
        )


class Recorder:
    """Writes events into MLflow, now or later. To be closed, or used in a ``with`` block.

    Args:
        registry: Registry in MLflow.
        store: Store of artifacts.
        spool_folder: Folder of events that wait; shared by all commands of one home.
        monotonic: Monotonic clock in seconds, for pauses.
        sleep: Waits for that many seconds.
    """

    def __init__(
        self,
        registry: Registry,
        store: PromptStore,
        spool_folder: Path,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._registry = registry
        self._store = store
        self._writer = RecordWriter(registry, store)
        self._spool = Spool(spool_folder)
        self._monotonic, self._sleep = monotonic, sleep
        self._waiting: dict[tuple[str, str], list[Event]] = {}
        # Their artifact could not be read; tried again by `drain`, not at every event.
        self._stuck: set[tuple[str, str]] = set()
        self._news_due_s: dict[tuple[str, str], float] = {}
        self._pause_s = 0.0
        self._next_try_s = 0.0
        self._lease = StoreLease(store.objects, LEASE, monotonic)
        # Ends of this recorder's turn; and whether it waits for the next one.
        self._turn_ends_s = self._idle_from_s = 0.0
        self._waits_for_turn = False

    def __enter__(self) -> Self:
        """The recorder itself; it is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def handle(self, events: Sequence[Event]) -> None:
        """Record events: on disk at once, in MLflow now or later.

        Later, if it cannot be reached, if it is only news of a task of which some was written a moment ago,
        or if there is more than can be written in a moment. Call it again and again, also without events.

        Never raises because of MLflow, the store or the disk: it logs.
        """
        if events:
            self._keep(events)
            self._add(events)
        if self._monotonic() >= self._next_try_s:
            self._write_waiting(filter(self._is_due, self._waiting), MAX_WRITING_S)

    def drain(self, limit_s: float = math.inf) -> Backlog:
        """Try now to write all that waits, or as much as that time allows; returns what still does."""
        self._stuck.clear()
        end_s = self._monotonic() + limit_s
        self._write_waiting(self._waiting, limit_s)
        while self._waits_for_turn and self._waiting and self._monotonic() < end_s:
            # Another recorder writes, and lets this one have its turn.
            self._sleep(LEASE_LOOK_S)
            self._write_waiting(self._waiting, end_s - self._monotonic())
        return self.summary()

    def replay(self) -> Backlog:
        """Take over what dead commands left, to be written with what comes; returns what waits."""
        try:
            self._add(self._spool.take_leftovers())
        except OSError as error:
            _logger.warning("records of earlier commands in %s cannot be read: %s", self._spool.folder, error)
        return self.summary()

    def reconcile(
        self, published: Mapping[tuple[str, str], Publication], specs: Iterable[TaskKey], read_s: float = 0.0
    ) -> Backlog:
        """Record tasks that are published but not in the registry, from their artifacts, and changed tags.

        Args:
            published: Publications in the store, by task and task key.
            specs: Tasks to look at.
            read_s: When their tags were read, seconds since the epoch.

        Returns:
            What still waits: all of it, if MLflow cannot be reached.
        """
        found = [
            (published[spec.name, spec.key], spec) for spec in specs if (spec.name, spec.key) in published
        ]
        if not found:
            return self.summary()
        try:
            recorded, tags = self._registry.gated_versions(), self._registry.tags()
        except RegistryDown as error:
            self._be_patient(error)
            return self.summary()
        except RegistryError as error:
            _logger.warning("what the registry lacks cannot be found out: %s", error)
            return self.summary()
        events = [
            _event_of(one, spec, read_s, "tagged" if (one.task, one.digest) in recorded else "published")
            for one, spec in found
            if (one.task, one.digest) not in recorded or tags.get(one.task, {}) != own_tags(spec.tags)
        ]
        self.handle(events)
        return self.summary()

    def decide_again(self, spec: TaskKey) -> Redecision:
        """Let what is in the store of a task pass the gate again; see ``RecordWriter.decide_again``."""
        return self._writer.decide_again(spec.name, spec.key, spec.floors)

    def summary(self) -> Backlog:
        """The backlog."""
        num_records = sum(len(events) for events in self._waiting.values())
        return Backlog(num_records=num_records, folder=self._spool.folder)

    def close(self, limit_s: float = math.inf) -> Backlog:
        """Try a last time, for as long as that, then leave what waits to the next command; returns it."""
        backlog = self.drain(limit_s) if self._waiting else self.summary()
        self._lease.release()
        self._spool.close()
        return backlog

    def _keep(self, events: Sequence[Event]) -> None:
        try:
            self._spool.append(events)
        except OSError as error:
            _logger.warning(
                "records cannot be spooled in %s (%s): they are lost if this command ends before MLflow has "
                "taken them",
                self._spool.folder,
                error,
            )

    def _add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._waiting.setdefault((event.task, event.key), []).append(event)

    def _is_due(self, pair: tuple[str, str]) -> bool:
        if any(event.kind not in _NEWS for event in self._waiting[pair]):
            return True
        now_s = self._monotonic()
        return now_s >= self._news_due_s.setdefault(pair, now_s + NEWS_EVERY_S)

    def _write_waiting(self, pairs: Iterable[tuple[str, str]], limit_s: float = math.inf) -> None:
        before, end_s = len(self._waiting), self._monotonic() + limit_s
        for pair in list(pairs):
            if pair not in self._stuck and not (self._take_turn() and self._write_task(pair)):
                break
            self._idle_from_s = self._monotonic() + IDLE_S
            if self._monotonic() > min(end_s, self._turn_ends_s):
                break
        self._yield_turn()
        if len(self._waiting) < before:
            remaining = [event for events in self._waiting.values() for event in events]
            # Writing again what was written changes nothing, so a full disk does no harm here.
            with suppress(OSError):
                self._spool.replace(remaining)

    def _take_turn(self) -> bool:
        """Hold the lease of all recorders of the store; False if another one has it now.

        Two that write the same come to one result, so that nothing depends on the lease but time.
        """
        if not self._lease.is_held:
            self._turn_ends_s = self._monotonic() + TURN_S
        try:
            has_turn = self._lease.acquire()
        except StoreError as error:
            _logger.warning("records are written without the lease of the store: %s", error)
            has_turn = True
        self._wait_for_turn(not has_turn)
        return has_turn

    def _yield_turn(self) -> None:
        """Let other recorders have their turn: after a while, without MLflow, or with nothing to write."""
        now_s = self._monotonic()
        is_over = now_s > self._turn_ends_s
        if self._lease.is_held and (is_over or now_s > self._idle_from_s or self._pause_s):
            self._lease.release()
            self._wait_for_turn(is_over)

    def _wait_for_turn(self, waits: bool) -> None:
        self._waits_for_turn = waits
        if waits:
            self._next_try_s = max(self._next_try_s, self._monotonic() + 2 * LEASE_LOOK_S)

    def _write_task(self, pair: tuple[str, str]) -> bool:
        """Write the events of one task key; False if MLflow cannot be reached."""
        try:
            with span("record", {"ship.task": pair[0], "ship.records": len(self._waiting[pair])}):
                self._writer.write(*pair, self._waiting[pair])
        except (RegistryDown, ForeignRegistryError) as error:
            self._be_patient(error)
            return False
        except StoreError as error:
            self._stuck.add(pair)
            _logger.warning("task %s is not recorded yet: %s", pair[0], error)
            return True
        # A boundary: what is wrong with one task's records must reach neither the tuning nor other tasks.
        except Exception as error:
            self._set_aside(pair, error)
        if self._pause_s:
            _logger.warning("MLflow is back; writing the records that waited")
        self._pause_s = self._next_try_s = 0.0
        if self._waiting.pop(pair)[-1].kind in _ENDS:
            self._news_due_s.pop(pair, None)
        else:
            self._news_due_s[pair] = self._monotonic() + NEWS_EVERY_S
        return True

    def _set_aside(self, pair: tuple[str, str], error: Exception) -> None:
        lines = [event.to_json() for event in self._waiting[pair]]
        with suppress(OSError):
            self._spool.set_aside(lines, f"task {pair[0]}: {error}")
        _logger.warning(
            "records of task %s cannot be written (%s); they are set aside in %s and not tried again",
            pair[0],
            error,
            self._spool.folder,
            exc_info=error,
        )

    def _be_patient(self, error: RegistryError) -> None:
        if not self._pause_s:
            _logger.warning("%s; tuning goes on, records wait in %s", error, self._spool.folder)
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self._next_try_s = self._monotonic() + self._pause_s


def _event_of(
    publication: Publication, spec: TaskKey, read_s: float, kind: Literal["published", "tagged"]
) -> Event:
    floors = spec.floors.to_dict()
    told = {"digest": publication.digest, **({"floors": floors} if floors else {})}
    return Event(
        kind=kind,
        task=publication.task,
        key=publication.task_key,
        attempt=1,
        time_s=publication.time_s,
        data={**(told if kind == "published" else {}), "tags": dict(spec.tags), "tagged_s": read_s},
    )
