"""Rows of any tasks, gathered into forward passes: fairly, in time, and never more than there is room for.

It knows neither Ray nor torch: a function that it is given answers a batch.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.serve.batching.batch_wait import BatchWait
from orchestrator.serve.batching.fair_queue import FairQueue

__all__ = ["Batcher", "LateError", "QueueFullError", "Timed"]

Row = TypeVar("Row")
Reply = TypeVar("Reply")

_log = logging.getLogger(__name__)

# A task that is turned away stays away for this part of the time until all that waits has had its turn, and
# of the patience of the row that was turned away: no turn is wasted.
_PART_AWAY = 0.25


class QueueFullError(Exception):
    """As many rows wait as may wait, and the row's task has its share of them.

    Args:
        wait_s: Seconds for which asking again is in vain; 0 if that is not known.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class LateError(Exception):
    """The row's time was up before its turn came."""


@dataclass(frozen=True, kw_only=True)
class Timed(Generic[Reply]):
    """A reply, and what it took.

    Attributes:
        reply: To the row.
        queue_s: Until the row's batch began.
        pass_s: For the batch.
    """

    reply: Reply
    queue_s: float
    pass_s: float


@dataclass(eq=False)
class _Waiting(Generic[Row, Reply]):
    """A row in the queue, and the promise of its reply."""

    row: Row
    arrived_s: float
    deadline_s: float
    reply: asyncio.Future[Timed[Reply]]
    batch: "_UnderWay | None" = None


@dataclass(eq=False)
class _UnderWay:
    """A batch that is being answered, and the number of its rows whose callers still wait."""

    num_wanted: int
    task: asyncio.Task[None] | None = None


class Batcher(Generic[Row, Reply]):
    """One queue of rows and the task that answers them, batch by batch. Of one event loop.

    The next batch is gathered while as many are under way as may be.

    Args:
        answer: Answers a batch, a reply a row. If it raises, every row of the batch gets the error.
        max_rows: Most rows of a batch.
        max_waiting: Rows that may wait. One more pushes out the newest row of the task that has most.
        max_pass_s: A batch has fewer rows where so many would take longer: rows that come meanwhile wait for
            it, and clients that have gone meanwhile are answered in vain.
        max_queue_s: Fewer rows may wait where so many would wait longer.
        size_of: Rows of the pass that a row takes: a picture in tiles takes one for each.
        wait: Policy of how long the first row of a batch waits for others, while nothing else is under way.
        may_cancel: Whether ``answer`` is cancelled once no caller waits for any row of its batch.
        untold: Errors of ``answer`` that the log need not tell.
        clock: Seconds that only go up.

    Attributes:
        num_at_a_time: Batches that may be under way; may be changed at any time.
    """

    def __init__(
        self,
        answer: Callable[[list[Row]], Awaitable[Sequence[Reply]]],
        *,
        max_rows: int,
        max_waiting: int,
        wait: BatchWait,
        max_pass_s: float,
        max_queue_s: float,
        size_of: Callable[[Row], int] = lambda row: 1,
        num_at_a_time: int = 1,
        may_cancel: bool = False,
        untold: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_at_a_time = num_at_a_time
        self._answer = answer
        self._may_cancel, self._untold = may_cancel, untold
        self._size_of = size_of
        self._max_rows, self._max_pass_s = max_rows, max_pass_s
        self._max_waiting, self._max_queue_s = max_waiting, max_queue_s
        self._queue: FairQueue[_Waiting[Row, Reply]] = FairQueue(
            max_waiting, lambda waiting: size_of(waiting.row)
        )
        self._wait = wait
        self._clock = clock
        self._is_warm = False
        self._arrived, self._ended = asyncio.Event(), asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None

    async def submit(self, task: str, row: Row, patience_s: float) -> Timed[Reply]:
        """The reply to a row.

        Args:
            task: Whose turn the row takes.
            row: To be answered.
            patience_s: Until the answer must be there.

        Raises:
            QueueFullError: There was no room, or others had more right to it.
            LateError: The row had no turn in time.
        """
        if self._pump is None:
            # Of no request's context: Ray would end what it does with the request that happened to be first.
            self._pump = asyncio.create_task(self._run(), context=Context())
        waiting = self._put(task, row, patience_s)
        timer = asyncio.get_running_loop().call_later(patience_s, self._give_up, task, waiting)
        try:
            return await waiting.reply
        finally:
            timer.cancel()
            # The client may have hung up.
            if not self._queue.remove(task, waiting):
                self._leave(waiting)
            # An error refers to this frame. If the frame referred back to it, a refused row, and the slot of
            # its prompt, would stay in memory until the garbage collector finds the circle.
            del waiting

    def _put(self, task: str, row: Row, patience_s: float) -> _Waiting[Row, Reply]:
        """Queue a row; refuses the row that has to leave for it, which may be the row itself."""
        now_s = self._clock()
        waiting: _Waiting[Row, Reply] = _Waiting(row, now_s, now_s + patience_s, asyncio.Future())
        self._wait.note_arrival(now_s)
        self._queue.max_rows = self._room()
        for left in self._queue.put(task, waiting):
            if not left.reply.done():
                left.reply.set_exception(QueueFullError(self._time_away_s(left)))
        self._arrived.set()
        return waiting

    def _give_up(self, task: str, waiting: _Waiting[Row, Reply]) -> None:
        if self._queue.remove(task, waiting) and not waiting.reply.done():
            waiting.reply.set_exception(LateError())

    def _leave(self, waiting: _Waiting[Row, Reply]) -> None:
        """Nobody waits for a row any more that was taken."""
        if (batch := waiting.batch) is None:
            return
        batch.num_wanted -= 1
        if self._may_cancel and not batch.num_wanted and batch.task is not None:
            batch.task.cancel()

    def _num_rows(self) -> int:
        """Most rows of the next batch."""
        fitting = self._wait.rows_within(self._max_pass_s)
        return self._max_rows if fitting is None else min(self._max_rows, fitting)

    def _room(self) -> int:
        """Rows that may wait."""
        num_rows = self._num_rows()
        pass_s = self._wait.expected_s(num_rows)
        if not pass_s:
            return self._max_waiting
        in_time = int(self._max_queue_s / pass_s * num_rows * self.num_at_a_time)
        return min(self._max_waiting, max(num_rows, in_time))

    def _time_away_s(self, left: _Waiting[Row, Reply]) -> float:
        """Seconds for which the task of a row that had to leave may stay away; the queue lasts longer.

        Rows that wait have about as much patience as this one: some may give up before their turn.
        """
        num_rows = self._num_rows()
        drain_s = len(self._queue) / num_rows * self._wait.expected_s(num_rows) / self.num_at_a_time
        return _PART_AWAY * min(drain_s, left.deadline_s - left.arrived_s)

    async def _run(self) -> None:
        while True:
            while len(self._under_way) >= self.num_at_a_time:
                self._ended.clear()
                await self._ended.wait()
            await self._gather()
            # Not kept in a variable: it would hold the prompts of the last batch until the next one comes.
            self._begin(self._take())

    def _begin(self, batch: list[_Waiting[Row, Reply]]) -> None:
        if not batch:
            return
        under_way = _UnderWay(num_wanted=len(batch))
        for waiting in batch:
            waiting.batch = under_way
        under_way.task = asyncio.create_task(self._answer_batch(batch))
        self._under_way.add(under_way.task)
        under_way.task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._ended.set()

    async def _gather(self) -> None:
        """Wait until there is a batch, and for as long as it is worth the while."""
        began_s: float | None = None
        num_rows = self._num_rows()
        while len(self._queue) < num_rows:
            self._arrived.clear()
            pause_s = None
            if len(self._queue):
                if self._under_way:
                    return
                now_s = self._clock()
                began_s = now_s if began_s is None else began_s
                pause_s = self._wait.pause_s(now_s, began_s)
                if pause_s == 0.0:
                    return
            try:
                async with asyncio.timeout(pause_s):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting[Row, Reply]]:
        """The next batch, without rows whose reply would come too late: they would cost others their turn."""
        batch: list[_Waiting[Row, Reply]] = []
        late: list[_Waiting[Row, Reply]] = []
        num_rows = left_rows = min(len(self._queue), self._num_rows())
        now_s = self._clock()
        end_s = now_s + self._wait.expected_s(num_rows)
        while len(self._queue) and left_rows > 0:
            waiting = self._queue.take()
            if waiting.reply.done():
                continue
            if waiting.deadline_s < end_s:
                late.append(waiting)
            else:
                batch.append(waiting)
                left_rows -= self._size_of(waiting.row)
        if late and not batch:
            # Passes may have become faster, which only a pass can show.
            likeliest = max(late, key=lambda waiting: waiting.deadline_s)
            if likeliest.deadline_s >= now_s:
                late.remove(likeliest)
                batch.append(likeliest)
        for waiting in late:
            waiting.reply.set_exception(LateError())
        return batch

    async def _answer_batch(self, batch: list[_Waiting[Row, Reply]]) -> None:
        start_s = self._clock()
        try:
            replies = await self._answer([waiting.row for waiting in batch])
            pairs = list(zip(batch, replies, strict=True))
        # A boundary: whatever a forward pass raises, each row gets its reply.
        except Exception as error:
            # As text: the frames of the error refer to the rows; see `submit`.
            if not isinstance(error, self._untold):
                _log.error("a batch of %d rows failed\n%s", len(batch), traceback.format_exc())
            for waiting in batch:
                if not waiting.reply.done():
                    waiting.reply.set_exception(error.with_traceback(None))
            return
        pass_s = self._clock() - start_s
        # The first one warms up what later ones find ready.
        if self._is_warm:
            self._wait.note_pass(sum(self._size_of(waiting.row) for waiting in batch), pass_s)
        self._is_warm = True
        for waiting, reply in pairs:
            if not waiting.reply.done():
                queue_s = start_s - waiting.arrived_s
                waiting.reply.set_result(Timed(reply=reply, queue_s=queue_s, pass_s=pass_s))
