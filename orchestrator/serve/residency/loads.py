"""Loads under way and loads that failed: one a prompt, however many ask. Its caller holds a lock."""

import asyncio
import logging
import re
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum

from orchestrator.serve.engine_api import Refusal
from orchestrator.serve.residency.served import Key, PromptRef, ServedVersion
from orchestrator.store.documents.catalog import IdleTask
from orchestrator.tracing import Attributes, Span, current, span, under
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError, PromptTooLargeError, SlotsFullError

__all__ = [
    "Load",
    "LoadFailure",
    "LoadPrompt",
    "LoadQueue",
    "Loads",
    "OtherBackboneError",
    "Pending",
    "Precedence",
    "ReadRule",
    "describe_failure",
    "public_text",
    "read_no_rule",
    "refuse",
    "refuse_idle",
    "wait_for",
]

# A file of an artifact, behind whatever the store's URL is, and what it ought to be: no host has blanks.
_FILE = re.compile(
    r"/[0-9a-f]{64}/(prompt\.safetensors|prompt\.json|record\.json|README\.md)\b"
    r"(: expected [0-9a-z ,]+|: no such object)?"
)
_RULE = re.compile(r"/rules/([0-9a-f]{12})[0-9a-f]{52}\.json\b")
LoadPrompt = Callable[[PromptRef, Callable[[int], bool]], ServedVersion]
ReadRule = Callable[[PromptRef], DecisionRule]
_log = logging.getLogger(__name__)


class Precedence(IntEnum):
    """Order of loads: those that a request waits for, successors of champions that answer, all others."""

    URGENT = 0
    SWAP = 1
    IN_ADVANCE = 2


@dataclass(frozen=True, kw_only=True)
class LoadFailure:
    """Why a prompt is not in memory.

    Attributes:
        text: The cause as clients may read it: without a bucket, host or path.
        cause: The whole cause, for the log.
        retry_at_s: When it may be tried again; None for never: an artifact's bytes do not change.
        backbone: The artifact's backbone, if it is not that of the runtime.
    """

    text: str
    cause: str
    retry_at_s: float | None
    backbone: str | None = None


def read_no_rule(ref: PromptRef) -> DecisionRule:
    """A ``ReadRule`` where no version names a rule. Raises ``ArtifactError``."""
    raise ArtifactError(f"decision rule {str(ref.rule)[:12]}: there is no reader of rules here")


class OtherBackboneError(ArtifactError):
    """An artifact of another backbone than the runtime's.

    Args:
        message: The message.
        backbone: Fingerprint of the artifact's backbone.
    """

    def __init__(self, message: str, backbone: str) -> None:
        super().__init__(message)
        self.backbone = backbone


def refuse(ref: PromptRef, cause: str) -> Refusal:
    """The refusal of a request for a version that is not in memory."""
    return Refusal(
        reason="not_loaded", detail=f"version {ref.version} of task {ref.task!r} is not served: {cause}"
    )


def refuse_idle(task: str, idle: IdleTask) -> Refusal:
    """The refusal of a request for a task without a champion."""
    if idle.is_retired:
        return Refusal(reason="retired", detail=f"task {task!r} was taken out of service")
    named = ", ".join(map(str, sorted(idle.versions)))
    return Refusal(
        reason="no_champion",
        detail=f"task {task!r} is registered, but none of its versions serves yet"
        + (f"; a request may name one: {named}" if named else ""),
    )


def describe_failure(error: Exception, retry_at_s: float) -> LoadFailure:
    """The failure of a load; one that comes of the artifact's or the rule's own bytes is final."""
    is_final = isinstance(error, ArtifactError | PromptTooLargeError)
    return LoadFailure(
        text=public_text(error),
        cause=str(error) or type(error).__name__,
        retry_at_s=None if is_final else retry_at_s,
        backbone=error.backbone if isinstance(error, OtherBackboneError) else None,
    )


def public_text(error: Exception) -> str:
    """What clients are told of a failed load: what is wrong with the prompt, and not where the store is."""
    if isinstance(error, ArtifactError | SlotsFullError):
        return str(error)
    found = _FILE.search(str(error))
    if found and found.group(2):
        return f"{found.group(1)}{found.group(2)}; the artifact was damaged or changed"
    rule = _RULE.search(str(error))
    what = f"{found.group(1)}: it" if found else f"decision rule {rule.group(1)}: it" if rule else "it"
    return f"{what} is missing or damaged, or cannot be read now; the log of the endpoint has the cause"


def _make_future() -> "Future[ServedVersion | LoadFailure | None]":
    future: Future[ServedVersion | LoadFailure | None] = Future()
    # One of many who wait for it may be cancelled; it is not.
    future.set_running_or_notify_cancel()
    return future


@dataclass(kw_only=True, eq=False)
class Load:
    """One prompt that is being loaded.

    Attributes:
        ref: The prompt.
        precedence: Its place in the order.
        may_evict: Whether champions of other tasks may go to make room for it.
        future: The served version or the failure; None if there was no room and no prompt was to go.
        found_no_room: It asked for room while nothing was to go.
        is_of_rule: The prompt was in memory, and only its decision rule was read.
        ended: Set when it is over, however it ended.
        asked_by: Span of the question that began it, if that is traced.
    """

    ref: PromptRef
    precedence: Precedence
    may_evict: bool
    found_no_room: bool = False
    is_of_rule: bool = False
    future: Future[ServedVersion | LoadFailure | None] = field(default_factory=_make_future)
    ended: threading.Event = field(default_factory=threading.Event)
    asked_by: Span | None = field(default_factory=current)


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A load to wait for, and what its prompt is to be called."""

    load: Load
    version: int
    shadow_version: int | None


class LoadQueue:
    """The queue and its threads.

    Args:
        run: Loads; called in a thread.
        num_places: Loads of each kind at a time.
    """

    def __init__(self, run: Callable[[Load], ServedVersion | LoadFailure | None], num_places: int) -> None:
        self._run = run
        self._num_places = num_places
        self._lock = threading.Lock()
        # In the order in which they came.
        self._waiting: dict[Precedence, dict[Load, None]] = {precedence: {} for precedence in Precedence}
        self._num_running: Counter[Precedence] = Counter()
        self._threads = ThreadPoolExecutor(len(Precedence) * num_places, "ship-load")

    def put(self, load: Load) -> None:
        """Load something when its turn comes."""
        with self._lock:
            self._waiting[load.precedence][load] = None
        self._threads.submit(self._work)

    def raise_to(self, load: Load, precedence: Precedence) -> None:
        """Let a load be of a kind that matters more; one that has begun keeps its place."""
        with self._lock:
            is_waiting = load in self._waiting[load.precedence]
            self._waiting[load.precedence].pop(load, None)
            load.precedence = precedence
            if is_waiting:
                self._waiting[precedence][load] = None
        self._threads.submit(self._work)

    def _work(self) -> None:
        """Load whatever may begin. There are as many threads as places, and a call for each load."""
        taken = self._take()
        while taken is not None:
            load, precedence = taken
            try:
                load.future.set_result(self._traced(load))
            # A request that waits for it must not wait for ever.
            except BaseException as error:
                trace = traceback.format_exc()
                _log.error("task %s, version %d was not loaded\n%s", load.ref.task, load.ref.version, trace)
                # Without its frames: they refer to the load, and perhaps to a slot.
                load.future.set_exception(error.with_traceback(None))
            taken = self._take(precedence)

    def _traced(self, load: Load) -> ServedVersion | LoadFailure | None:
        ref = load.ref
        attributes: Attributes = {
            "ship.task": ref.task,
            "ship.version": ref.version,
            "ship.digest": ref.digest,
        }
        with under(load.asked_by), span("load prompt", attributes) as loading:
            outcome = self._run(load)
            if loading is not None and isinstance(outcome, LoadFailure):
                loading.fail("not_loaded")
            return outcome

    def _take(self, ended: Precedence | None = None) -> tuple[Load, Precedence] | None:
        """The next load that has a place; gives back the place of one that has ended in the same step."""
        with self._lock:
            if ended is not None:
                self._num_running[ended] -= 1
            for precedence, waiting in self._waiting.items():
                if waiting and self._num_running[precedence] < self._num_places:
                    load = next(iter(waiting))
                    del waiting[load]
                    self._num_running[precedence] += 1
                    return load, precedence
            return None


class Loads:
    """Starts loads and remembers them.

    Args:
        run: Loads; called in a thread, and calls ``end``.
        num_loaders: Loads of each kind at a time.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        run: Callable[[Load], ServedVersion | LoadFailure | None],
        num_loaders: int,
        clock: Callable[[], float],
    ) -> None:
        self._queue = LoadQueue(run, num_loaders)
        self._clock = clock
        self._running: dict[Key, Load] = {}
        self._failures: dict[Key, LoadFailure] = {}

    def __len__(self) -> int:
        """Loads under way."""
        return len(self._running)

    def begin(self, ref: PromptRef, precedence: Precedence, *, may_evict: bool) -> Load:
        """Load a prompt, or join the load that is under way, which comes no later for it."""
        load = self._running.get(ref.key)
        if load is None:
            load = Load(ref=ref, precedence=precedence, may_evict=may_evict)
            self._running[ref.key] = load
            self._queue.put(load)
            return load
        load.may_evict |= may_evict
        if precedence < load.precedence:
            self._queue.raise_to(load, precedence)
        return load

    def end(self, load: Load, failure: LoadFailure | None = None) -> None:
        """Note how a load ended."""
        del self._running[load.ref.key]
        self._failures.pop(load.ref.key, None)
        if failure is not None:
            self._failures[load.ref.key] = failure

    def failure(self, key: Key) -> LoadFailure | None:
        """Failure of the last load of a prompt, if it failed."""
        return self._failures.get(key)

    def hindrance(self, key: Key) -> LoadFailure | None:
        """The same, unless it may be tried again."""
        failure = self._failures.get(key)
        return None if failure is None or self._may_retry(failure) else failure

    def due(self) -> list[Key]:
        """Prompts that failed and may be tried again."""
        return [key for key, failure in self._failures.items() if self._may_retry(failure)]

    def ends(self) -> list[threading.Event]:
        """Events of all loads under way: set when they are over."""
        return [load.ended for load in self._running.values()]

    def forget(self, key: Key) -> None:
        """Forget that a prompt failed."""
        self._failures.pop(key, None)

    def _may_retry(self, failure: LoadFailure) -> bool:
        return failure.retry_at_s is not None and self._clock() >= failure.retry_at_s


async def wait_for(future: "Future[ServedVersion | LoadFailure | None]", timeout_s: float) -> bool:
    """Wait for a load, which continues if the wait is given up; whether it is over."""
    if not future.done() and timeout_s > 0.0:
        await asyncio.wait({asyncio.wrap_future(future)}, timeout=timeout_s)
    return future.done()
