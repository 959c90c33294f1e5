"""Dispatcher of questions: one call to an engine carries those of all requests that are ready.

What a call costs is shared by its questions; they keep their own turns, deadlines, replies and refusals. It
knows no Ray: a function that it is given makes the calls.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.serve.batching.batch_wait import BatchWait
from orchestrator.serve.batching.batcher import Batcher, LateError, QueueFullError
from orchestrator.serve.engine_api import (
    Answer,
    Ask,
    Call,
    CallReply,
    EngineBusyError,
    EngineUnavailableError,
    Image,
    Refusal,
)
from orchestrator.serve.options import EngineOptions
from orchestrator.tracing import record, span

__all__ = ["Dispatcher"]

# One is computed while the next one is on its way.
_CALLS_OF_ENGINE = 2
# An engine that has answered nothing for so long is gone, or is not asked.
_SEEN_S = 60.0
_Replies = tuple[Answer | Refusal, ...]


@dataclass(frozen=True, eq=False)
class _Group:
    """Questions of one request about one task, which stay together: one engine answers them, at one time."""

    images: tuple[Image, ...]
    asks: tuple[Ask, ...]
    deadline_s: float

    @property
    def num_rows(self) -> int:
        """Rows of a forward pass that they take: a picture in tiles takes one for each."""
        return sum(ask.view.num_tiles for ask in self.asks)


class Dispatcher:
    """Queue of questions in front of the engines, and the calls that carry them. Of one event loop.

    Tasks take turns, as they do in an engine, and the limits on what waits are those of an engine, for each
    engine that answers. While fewer than two calls are under way for each, what is ready goes at once;
    meanwhile more gathers.

    Args:
        send: Makes a call to one of the engines.
        options: Options of each engine.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        send: Callable[[Call], Awaitable[CallReply]],
        options: EngineOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._clock = send, clock
        self._seen_s: dict[str, float] = {}
        self._batcher: Batcher[_Group, _Replies] = Batcher(
            self._answer,
            max_rows=options.max_batch_rows,
            max_waiting=options.max_waiting,
            wait=BatchWait(0.0),
            max_pass_s=options.max_pass_s,
            max_queue_s=options.max_queue_s,
            size_of=lambda group: group.num_rows,
            num_at_a_time=_CALLS_OF_ENGINE,
            may_cancel=True,
            untold=(EngineBusyError, EngineUnavailableError),
            clock=clock,
        )

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        """See ``engine_api.Engine``."""
        places: dict[str, list[int]] = {}
        for place, ask in enumerate(asks):
            places.setdefault(ask.task, []).append(place)
        if len(places) == 1:
            return list(await self._ask_about(asks[0].task, images, asks, patience_s))
        found = await asyncio.gather(
            *(
                self._ask_about(task, images, [asks[place] for place in those], patience_s)
                for task, those in places.items()
            ),
            return_exceptions=True,
        )
        replies: dict[int, Answer | Refusal] = {}
        for those, outcome in zip(places.values(), found, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            replies |= dict(zip(those, outcome, strict=True))
        return [replies[place] for place in range(len(asks))]

    async def _ask_about(
        self, task: str, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> _Replies:
        with span("ask", {"ship.task": task, "ship.questions": len(asks)}, kind="client") as asking:
            used = list(dict.fromkeys(ask.image for ask in asks))
            trace = None if asking is None else asking.traceparent
            group = _Group(
                images=tuple(images[number] for number in used),
                asks=tuple(replace(ask, image=used.index(ask.image), trace=trace) for ask in asks),
                deadline_s=self._clock() + patience_s,
            )
            return await self._reply_to(group, task, patience_s)

    async def _reply_to(self, group: _Group, task: str, patience_s: float) -> _Replies:
        num_asks = len(group.asks)
        try:
            timed = await self._batcher.submit(task, group, patience_s)
        except QueueFullError as error:
            detail = f"too many requests wait, task {task!r} has its share"
            return (Refusal(reason="busy", detail=detail, wait_s=error.wait_s),) * num_asks
        except LateError:
            return (Refusal(reason="late", detail=f"no turn came within {patience_s:g} s"),) * num_asks
        record("queue", timed.queue_s, timed.pass_s)
        replies = await self._ask_again(group, timed.reply)
        return tuple(
            replace(reply, queue_s=reply.queue_s + timed.queue_s) if isinstance(reply, Answer) else reply
            for reply in replies
        )

    async def _ask_again(self, group: _Group, replies: _Replies) -> _Replies:
        """Ask once more, in a call of their own, what waits for a load, or what one of several engines had
        no room for: Ray chooses by what the engines have to do.
        """
        again = [place for place, reply in enumerate(replies) if self._is_open(group.asks[place], reply)]
        if not again:
            return replies
        rest = replace(group, asks=tuple(group.asks[place] for place in again))
        found = dict(zip(again, (await self._call([rest], waits=True))[0], strict=True))
        return tuple(found.get(place, reply) for place, reply in enumerate(replies))

    def _is_open(self, ask: Ask, reply: Answer | Refusal) -> bool:
        if isinstance(reply, Answer) or ask.is_background:
            return False
        return reply.is_loading or (reply.reason == "busy" and len(self._seen_s) > 1)

    async def _answer(self, groups: list[_Group]) -> list[_Replies]:
        return await self._call(groups, waits=False)

    async def _call(self, groups: Sequence[_Group], *, waits: bool) -> list[_Replies]:
        reply = await self._send(_call_of(groups, self._clock(), waits=waits))
        self._note(reply.replica)
        replies = iter(reply.replies)
        return [tuple(next(replies) for _ in group.asks) for group in groups]

    def _note(self, replica: str) -> None:
        """An engine has answered: for each there may be calls under way."""
        now_s = self._clock()
        self._seen_s[replica] = now_s
        self._seen_s = {name: at_s for name, at_s in self._seen_s.items() if now_s - at_s <= _SEEN_S}
        self._batcher.num_at_a_time = _CALLS_OF_ENGINE * len(self._seen_s)


def _call_of(groups: Sequence[_Group], now_s: float, *, waits: bool) -> Call:
    # Questions about one image share it, also those of one request about several tasks.
    images = list({id(image): image for group in groups for image in group.images}.values())
    images.sort(key=lambda image: image.shape)
    numbers = {id(image): number for number, image in enumerate(images)}
    shapes = dict.fromkeys(image.shape for image in images)
    return Call(
        stacks=tuple(np.stack([image for image in images if image.shape == shape]) for shape in shapes),
        asks=tuple(
            replace(ask, image=numbers[id(group.images[ask.image])]) for group in groups for ask in group.asks
        ),
        patience_s=tuple(max(0.0, group.deadline_s - now_s) for group in groups for _ in group.asks),
        waits=waits,
    )
