"""For whoever watches the endpoint: ``GET /healthz``, ``/readyz`` and ``/metrics``."""

import asyncio
from contextlib import suppress
from dataclasses import asdict

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from orchestrator.errors import ServeError
from orchestrator.serve.ingress.front import Front
from orchestrator.serve.ingress.middleware.auth import principal_of
from orchestrator.serve.ingress.middleware.metrics import CONTENT_TYPE

__all__ = ["HealthRoutes"]

# Prometheus gives up after ten seconds.
_STATS_S = 1.0


class HealthRoutes:
    """The routes.

    Args:
        front: Of the engine.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def healthz(self) -> Response:
        """Whether this process runs."""
        return JSONResponse({"status": "ok"})

    async def readyz(self) -> Response:
        """Whether requests can be answered: a catalog was read once."""
        readiness = await self._front.ask(self._front.engine.readiness())
        if not readiness.ready:
            raise self._front.unavailable("not-ready", readiness.detail)
        return JSONResponse({"status": "ready", **asdict(readiness)})

    async def show_metrics(self, request: Request) -> Response:
        """Counters in Prometheus' text format."""
        principal_of(request).check_may_read_metrics()
        # An engine that cannot be asked is what the other numbers tell of: the page is there all the more.
        with suppress(ServeError, TimeoutError):
            async with asyncio.timeout(_STATS_S):
                self._front.metrics.note_residency(await self._front.engine.stats())
        return Response(self._front.metrics.render(), media_type=CONTENT_TYPE)
