"""The one thread that works on a device, for many callers: their tasks share one pack.

Callers load data and publish in threads of their own. Work on the device is done here, one piece after
another, so that no caller uses the backbone in the middle of another's pass, and a task may join as soon as
its data is there.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from ship.backbone import Backbone
from ship.errors import PackError
from ship.tuning.member import PackTask, TuneResult
from ship.tuning.pack import Pack

__all__ = ["Tuner"]

T = TypeVar("T")
Outcome = TuneResult | Exception


@dataclass(kw_only=True, eq=False)
class _Request:
    """Tasks that a caller waits for."""

    tasks: Sequence[PackTask]
    on_joined: Callable[[], None]
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    num_joined: int = 0
    done: Future[list[Outcome]] = field(default_factory=Future)


class Tuner:
    """Tunes tasks of many threads side by side. Its own thread lives while there is work.

    Args:
        backbone: The frozen network, in float32; it is not changed.
        max_fused: Most tasks that may share a step; None for as many as fit and pay.
        memory_bytes: Memory that a step may take; None for all that is free on the device when work begins.
    """

    def __init__(
        self, backbone: Backbone, *, max_fused: int | None = None, memory_bytes: int | None = None
    ) -> None:
        self.backbone = backbone
        self._max_fused = max_fused
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._waiting: deque[_Request] = deque()
        self._is_running = False
        self._passes = _count_passes(backbone)
        # Of its own thread alone.
        self._pack: Pack | None = None
        self._members: dict[int, tuple[_Request, int]] = {}

    @property
    def num_passes(self) -> int:
        """Forward passes so far, for whatever purpose: while there is work, it grows."""
        return self._passes[0]

    def tune(
        self, tasks: Sequence[PackTask], *, on_joined: Callable[[], None] = lambda: None
    ) -> list[Outcome]:
        """Tune some tasks, beside those of other callers; see ``ship.tuning.run.tune_pack``.

        Args:
            tasks: Tasks to tune; those that share one ``data`` stand side by side.
            on_joined: Called, in the tuner's thread, as soon as the last of them has joined the pack.

        Returns:
            For each task its result, or the exception that ended it: a ``PackError`` where a step failed and
            it is not known which task's fault that was.
        """
        request = _Request(tasks=tasks, on_joined=on_joined)
        if not tasks:
            return []
        self._hand_over(lambda: self._waiting.append(request))
        return request.done.result()

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` between two steps; returns its result, or raises its exception."""
        done: Future[T] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._hand_over(lambda: self._jobs.append(do))
        return done.result()

    def _hand_over(self, put: Callable[[], None]) -> None:
        with self._lock:
            put()
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._live, name="tuner", daemon=True).start()

    def _live(self) -> None:
        while True:
            with self._lock:
                if not (self._jobs or self._waiting or self._members):
                    # Memory that is free now may be another's later.
                    self._pack = None
                    self._is_running = False
                    return
                jobs = list(self._jobs)
                self._jobs.clear()
            for job in jobs:
                job()
            self._advance()

    def _advance(self) -> None:
        """Let waiting tasks join that fit, and take a step."""
        try:
            if self._pack is None:
                self._pack = Pack(self.backbone, memory_bytes=self._memory_bytes)
            self._let_in(self._pack)
            if len(self._pack):
                self._pack.step()
        except Exception as error:  # a boundary: any error must reach the waiting callers
            self._fail_all(error)
        else:
            self._hand_out(self._pack)

    def _let_in(self, pack: Pack) -> None:
        while self._waiting and (self._max_fused is None or len(pack) < self._max_fused):
            request = self._waiting[0]
            task = request.tasks[request.num_joined]
            if not pack.has_room_for(task):
                return
            [key] = pack.add([task])
            self._members[key] = request, request.num_joined
            request.num_joined += 1
            if request.num_joined == len(request.tasks):
                self._waiting.popleft()
                request.on_joined()

    def _hand_out(self, pack: Pack) -> None:
        for key, outcome in list(pack.outcomes.items()):
            del pack.outcomes[key]
            self._finish(key, outcome)

    def _fail_all(self, error: Exception) -> None:
        """Fail all tasks of a pack whose step raised an unknown error; the pack is not used again."""
        self._pack = None
        keys = list(self._members)
        if not keys and self._waiting:
            # Not even the start of a pack succeeds with it.
            self._waiting.popleft().done.set_exception(error)
        for key in keys:
            outcome = error if len(keys) == 1 else PackError.of(error, len(keys))
            self._finish(key, outcome)

    def _finish(self, key: int, outcome: Outcome) -> None:
        request, number = self._members.pop(key)
        request.outcomes[number] = outcome
        if len(request.outcomes) == len(request.tasks):
            request.done.set_result([request.outcomes[index] for index in range(len(request.tasks))])


def _count_passes(backbone: Backbone) -> list[int]:
    """A counter of the backbone's forward passes, and of its casts', which are copies with the same hook."""
    passes = [0]

    def note(*_: object) -> None:
        passes[0] += 1

    backbone.vit.patch_embed.register_forward_hook(note)
    return passes
