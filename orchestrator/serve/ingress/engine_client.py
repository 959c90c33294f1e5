"""Engine client of the ingress: Ray Serve's handle, one retry when a replica dies, errors of our own."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import (
    ALL_TASKS,
    Answer,
    Ask,
    Call,
    CallReply,
    EngineBusyError,
    EngineUnavailableError,
    Explanation,
    Image,
    Readiness,
    Refusal,
    ResidencyStats,
    ServingState,
    TaskPage,
)
from orchestrator.serve.ingress.dispatcher import Dispatcher
from orchestrator.serve.options import EngineOptions
from orchestrator.tracing import span
from ship.backbone_info import BackboneInfo

__all__ = ["RayEngine"]

# Ray Serve does not repeat an accepted request when its replica dies. Requests here change nothing, so that
# they can be repeated.
_NUM_TRIES = 2


class RayEngine:
    """An ``engine_api.Engine`` behind a deployment handle.

    Args:
        handle: Handle of the engine deployment.
        timeout_s: Timeout of one call, all tries together.
        options: Options of each engine.

    """

    def __init__(self, handle: Any, timeout_s: float, options: EngineOptions | None = None) -> None:
        self._handle = handle
        self._timeout_s = timeout_s
        self._dispatcher = Dispatcher(self._send, options or EngineOptions())
        self._fingerprint = ""
        # An engine answered that has another backbone than `backbone` said: the endpoint was given another
        # one, and pictures are fitted to the one before.
        self._is_outdated = False

    def check(self) -> None:
        """Check that the engines have the backbone that they said they have.

        Raises:
            ServeError: They have another one.
        """
        if self._is_outdated:
            raise ServeError("the engines have another backbone than when this ingress started")

    async def backbone(self) -> BackboneInfo:
        """See ``engine_api.Engine``."""
        info: BackboneInfo = await self._handle.backbone.remote()
        self._fingerprint = info.fingerprint
        return info

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        """See ``engine_api.Engine``."""
        return await self._dispatcher.predict(images, asks, patience_s)

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        """See ``engine_api.Engine``."""
        with span("ask", {"ship.task": ask.task}, kind="client") as asking:
            asked = ask if asking is None else replace(ask, trace=asking.traceparent)
            reply: Explanation | Refusal = await self._call("explain", image, asked, patience_s)
            return reply

    async def tasks(self, page: TaskPage = ALL_TASKS) -> list[ServingState]:
        """See ``engine_api.Engine``."""
        states: list[ServingState] = await self._call("tasks", page)
        return states

    async def task(self, name: str) -> ServingState | Refusal | None:
        """See ``engine_api.Engine``."""
        state: ServingState | Refusal | None = await self._call("task", name)
        return state

    async def readiness(self) -> Readiness:
        """See ``engine_api.Engine``."""
        readiness: Readiness = await self._call("readiness")
        return readiness

    async def stats(self) -> list[ResidencyStats]:
        """See ``engine_api.Engine``; a replica that does not answer is left out."""
        try:
            found = await self._handle.broadcast("stats").results_async(
                timeout_s=self._timeout_s, return_exceptions=True
            )
        except (TimeoutError, DeploymentUnavailableError) as error:
            raise EngineUnavailableError("no engine says what it holds; try again shortly") from error
        return [stats for one in found if not isinstance(one, BaseException) for stats in one]

    async def _send(self, call: Call) -> CallReply:
        """Have one engine answer a call; another one, if it dies meanwhile."""
        reply: CallReply = await self._call("answer", call)
        if self._fingerprint and reply.backbone not in ("", self._fingerprint):
            self._is_outdated = True
            raise EngineUnavailableError("the endpoint changes to another backbone; try again shortly")
        return reply

    async def _call(self, method: str, *args: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._try(method, *args)
        except TimeoutError as error:
            raise EngineUnavailableError(f"no engine answered within {self._timeout_s:g} s") from error
        except BackPressureError as error:
            raise EngineBusyError("too many requests are waiting for an engine; try again shortly") from error
        except (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError) as error:
            raise EngineUnavailableError(f"the engine died {_NUM_TRIES} times; try again shortly") from error

    async def _try(self, method: str, *args: Any) -> Any:
        for _ in range(_NUM_TRIES - 1):
            try:
                return await self._ask(method, *args)
            except (RayActorError, ReplicaUnavailableError):
                continue
        return await self._ask(method, *args)

    async def _ask(self, method: str, *args: Any) -> Any:
        response = getattr(self._handle, method).remote(*args)
        try:
            return await response
        except asyncio.CancelledError:
            # Ray ends what a request has asked when the request ends; a call of several has none.
            response.cancel()
            raise
