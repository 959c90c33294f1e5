"""Keeps pictures in the store, beside the answers: in a thread, by a queue that is bounded.

No answer waits for it or fails by it: what there is no room for, or what the store does not take, is dropped
and counted.
"""

import hashlib
import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestrator.errors import OrchestratorError
from orchestrator.serve.engine_api import Answer
from orchestrator.serve.keep_rules import KeepRule, find_reason
from orchestrator.store.documents.kept import KeptPicture
from orchestrator.store.kept.pictures import KeepLimits, KeptPictures

__all__ = ["Keeper"]

_log = logging.getLogger(__name__)
_MAX_WAITING, _MAX_WAITING_BYTES = 64, 64 << 20
# Pictures of a task from one look at what others have kept to the next.
_LOOK_EVERY = 100
# Trimmed to so much of a limit, so that not every further picture costs a listing.
_ROOM = 0.9


class Keeper:
    """Keeps pictures of one ingress; for one event loop, which calls ``offer``.

    Args:
        kept: Where they are kept.
        rules: Which are.
        limits: The most that is kept of a task.
        draw: Draws a number from 0 to below 1.
        clock: Current time, seconds since the epoch.
    """

    def __init__(
        self,
        kept: KeptPictures,
        rules: Sequence[KeepRule],
        limits: KeepLimits,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept, self._rules, self._limits = kept, tuple(rules), limits
        self._draw, self._clock = draw, clock
        self._waiting: queue.Queue[tuple[KeptPicture, bytes]] = queue.Queue(_MAX_WAITING)
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._counts: Counter[str] = Counter()
        # By task: what there is, and what was added since that was looked at.
        self._known: dict[str, tuple[int, int, int]] = {}
        self._had_problem = False

    @property
    def counts(self) -> Mapping[str, int]:
        """Pictures by outcome: ``kept``, ``known``, ``full``, ``failed``."""
        with self._lock:
            return dict(self._counts)

    @property
    def is_busy(self) -> bool:
        """Whether pictures wait to be written, or are being written."""
        with self._lock:
            return self._waiting_bytes > 0

    def start(self) -> None:
        """Start the thread that writes."""
        threading.Thread(target=self._run, name="ship-keep", daemon=True).start()

    def offer(self, answer: Answer, content: bytes) -> None:
        """Keep the picture of an answer if a rule says so; returns at once."""
        reason = find_reason(self._rules, answer, self._draw())
        if reason is None or not content:
            return
        if len(content) > self._limits.num_bytes:
            with self._lock:
                self._counts["full"] += 1
            return
        kept = KeptPicture(
            task=answer.task,
            picture="",
            num_bytes=len(content),
            version=answer.version,
            digest=answer.digest,
            rule=answer.rule,
            decision=answer.decision,
            because=answer.because,
            probabilities=answer.probabilities,
            distance=answer.distance,
            reason=reason,
            time_s=self._clock(),
        )
        with self._lock:
            has_room = self._waiting_bytes + len(content) <= _MAX_WAITING_BYTES
            if not has_room or self._waiting.full():
                self._counts["full"] += 1
                return
            self._waiting_bytes += len(content)
        self._waiting.put_nowait((kept, content))

    def step(self) -> None:
        """Keep the picture that has waited longest; waits for one."""
        kept, content = self._waiting.get()
        try:
            outcome = self._keep(kept, content)
        # A boundary: whatever a store's driver raises, the next picture may be kept.
        except Exception as error:
            outcome = "failed"
            # Said once, and neither the picture nor a secret is in it.
            if not self._had_problem:
                told = str(error) if isinstance(error, OrchestratorError) else type(error).__name__
                _log.warning("a picture of task %s could not be kept: %s", kept.task, told)
            self._known.pop(kept.task, None)
        self._had_problem = outcome == "failed"
        with self._lock:
            self._waiting_bytes -= len(content)
            self._counts[outcome] += 1

    def _run(self) -> None:
        while True:
            self.step()

    def _keep(self, kept: KeptPicture, content: bytes) -> str:
        kept = replace(kept, picture=hashlib.sha256(content).hexdigest())
        size = len(content) + len(kept.to_json())
        self._make_room(kept.task, size)
        if not self._kept.put(kept, content):
            return "known"
        num, num_bytes, since = self._known[kept.task]
        self._known[kept.task] = num + 1, num_bytes + size, since + 1
        return "kept"

    def _make_room(self, task: str, num_bytes: int) -> None:
        """Look now and then at what there is, and remove what is over the limits with one more picture."""
        num, total, since = self._known.get(task, (0, 0, _LOOK_EVERY))
        is_full = num + 1 > self._limits.pictures or total + num_bytes > self._limits.num_bytes
        if since < _LOOK_EVERY and not is_full:
            return
        share = _ROOM if is_full else 1.0
        limits = KeepLimits(
            pictures=max(0, int(self._limits.pictures * share) - 1),
            num_bytes=max(0, int(self._limits.num_bytes * share) - num_bytes),
            age_s=self._limits.age_s,
        )
        left = self._kept.trim(task, limits, self._clock(), self._kept.labelled(task))
        self._known[task] = len(left), sum(one.num_bytes for one in left), 0
