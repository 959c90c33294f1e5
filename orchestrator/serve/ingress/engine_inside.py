"""Engine in the process of its ingress: what is read there is answered there, with no call between them."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from orchestrator.serve.backbone_source import BackboneSource
from orchestrator.serve.engine_api import (
    ALL_TASKS,
    Answer,
    Ask,
    Call,
    EngineUnavailableError,
    Explanation,
    Image,
    Readiness,
    Refusal,
    ResidencyStats,
    ServingState,
    TaskPage,
)
from orchestrator.serve.ingress.peers import Peers
from orchestrator.serve.options import EngineOptions
from orchestrator.tracing import span
from ship.backbone_info import BackboneInfo

if TYPE_CHECKING:
    from orchestrator.serve.engine.deployment import EngineReplica

__all__ = ["EngineArguments", "EngineInside"]

_Reply = TypeVar("_Reply")


@dataclass(frozen=True, kw_only=True)
class EngineArguments:
    """What an ``EngineReplica`` is made from, for an ingress that has it inside."""

    source: BackboneSource
    store_url: str
    num_threads: int
    options: EngineOptions

    def start(self) -> "EngineReplica":
        """The engine, which knows its tasks. Blocks meanwhile."""
        # An ingress without an engine inside needs no torch.
        from orchestrator.serve.engine.deployment import EngineReplica

        return EngineReplica(self.source, self.store_url, self.num_threads, self.options)


class EngineInside:
    """An ``engine_api.Engine`` in this process.

    Its own queue batches the rows of all requests, and gives tasks their turns.

    Args:
        replica: The engine.
        timeout_s: Timeout of one call.
        peers: The ingresses that have such engines; None where there is this one alone.
    """

    def __init__(self, replica: "EngineReplica", timeout_s: float, peers: Peers | None = None) -> None:
        self._replica = replica
        self._timeout_s = timeout_s
        self._peers = peers

    def check(self) -> None:
        """See ``EngineReplica.check_health``."""
        self._replica.check_health()

    def close(self) -> None:
        """See ``EngineReplica.close``."""
        self._replica.close()

    async def backbone(self) -> BackboneInfo:
        """See ``engine_api.Engine``."""
        return await self._replica.backbone()

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        """See ``engine_api.Engine``."""
        with span("ask", {"ship.questions": len(asks)}, kind="client") as asking:
            trace = None if asking is None else asking.traceparent
            call = Call(
                stacks=tuple(image[None] for image in images),
                asks=tuple(asks) if trace is None else tuple(replace(ask, trace=trace) for ask in asks),
                patience_s=(patience_s,) * len(asks),
                waits=True,
            )
            return list((await self._in_time(self._replica.answer(call))).replies)

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        """See ``engine_api.Engine``."""
        with span("ask", {"ship.task": ask.task}, kind="client") as asking:
            asked = ask if asking is None else replace(ask, trace=asking.traceparent)
            return await self._in_time(self._replica.explain(image, asked, patience_s))

    async def tasks(self, page: TaskPage = ALL_TASKS) -> list[ServingState]:
        """See ``engine_api.Engine``."""
        return await self._replica.tasks(page)

    async def task(self, name: str) -> ServingState | Refusal | None:
        """See ``engine_api.Engine``."""
        return await self._replica.task(name)

    async def readiness(self) -> Readiness:
        """See ``engine_api.Engine``."""
        return await self._replica.readiness()

    async def stats(self) -> list[ResidencyStats]:
        """See ``engine_api.Engine``: of the engines in all ingresses."""
        found = [] if self._peers is None else await self._peers.ask("stats", self._timeout_s)
        return [stats for each in found for stats in each] or await self.own_stats()

    async def own_stats(self) -> list[ResidencyStats]:
        """Which prompts this engine holds."""
        return await self._replica.stats()

    async def _in_time(self, reply: Awaitable[_Reply]) -> _Reply:
        # Questions that wait give up by themselves; a forward pass that hangs does not.
        try:
            async with asyncio.timeout(self._timeout_s):
                return await reply
        except TimeoutError as error:
            raise EngineUnavailableError(f"no engine answered within {self._timeout_s:g} s") from error
