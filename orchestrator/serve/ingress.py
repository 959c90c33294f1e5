"""The ingress deployment: the HTTP interface of ``app`` in a Ray Serve replica."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from orchestrator.serve.access_log import open_request_log
from orchestrator.serve.app import make_app
from orchestrator.serve.drain import Drain
from orchestrator.serve.engine_client import RayEngine
from orchestrator.serve.options import Limits
from ship.backbone import BackboneInfo

__all__ = ["Ingress"]


class Ingress:
    """The deployment's class; ``deployments`` wraps it with ``serve.ingress()``.

    Args:
        engine: Handle of the engine deployment.
        header: Of the backbone, see ``Backbone.to_arrays``.
        limits: What the door lets in.
    """

    def __init__(self, engine: Any, header: Mapping[str, Any], limits: Limits) -> None:
        self._engine = RayEngine(engine, limits.timeout_s)
        self._backbone = BackboneInfo.from_dict(header)
        self._limits = limits
        self._drain = Drain()

    async def close(self, timeout_s: float) -> bool:
        """See ``Drain.close``."""
        return await self._drain.close(timeout_s)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve, once ``__init__`` is done."""
        if self._limits.request_log is not None:
            open_request_log(self._limits.request_log)
        # Ray Serve's proxy puts the request's id into the response itself.
        return make_app(self._engine, self._backbone, self._limits, self._drain, names_responses=False)
