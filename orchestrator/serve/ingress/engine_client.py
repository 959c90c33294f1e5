"""Engine client of the ingress: Ray Serve's handle, one retry when a replica dies, errors of our own."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from orchestrator.serve.engine_api import (
    ALL_TASKS,
    Answer,
    Ask,
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
    """

    def __init__(self, handle: Any, timeout_s: float) -> None:
        self._handle = handle
        self._timeout_s = timeout_s

    async def backbone(self) -> BackboneInfo:
        """See ``engine_api.Engine``."""
        info: BackboneInfo = await self._handle.backbone.remote()
        return info

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        """See ``engine_api.Engine``."""
        replies: list[Answer | Refusal] = await self._call("predict", images, asks, patience_s)
        return replies

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        """See ``engine_api.Engine``."""
        reply: Explanation | Refusal = await self._call("explain", image, ask, patience_s)
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

    async def stats(self) -> ResidencyStats:
        """See ``engine_api.Engine``."""
        stats: ResidencyStats = await self._call("stats")
        return stats

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
                return await getattr(self._handle, method).remote(*args)
            except (RayActorError, ReplicaUnavailableError):
                continue
        return await getattr(self._handle, method).remote(*args)
