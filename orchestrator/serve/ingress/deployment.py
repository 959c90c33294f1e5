"""The ingress deployment: the HTTP interface of ``app`` in a Ray Serve replica."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve

from orchestrator.serve.engine_api import ServingState
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.ingress.looks import Looks
from orchestrator.serve.ingress.middleware.access_log import open_request_log
from orchestrator.serve.ingress.middleware.drain import Drain
from orchestrator.serve.ingress.middleware.token_follower import TokenFollower
from orchestrator.serve.options import EngineOptions, Limits
from orchestrator.serve.process_log import open_process_log
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.backbone import BackboneInfo

__all__ = ["Ingress"]

_FIRST_TOKENS_S = 10.0


class Ingress:
    """The deployment's class; ``deployments`` wraps it with ``serve.ingress()``.

    Args:
        engine: Handle of the engine deployment.
        header: Description of the backbone, see ``Backbone.to_arrays``.
        limits: Limits on requests.
        tokens_url: URL of the store with the tokens; None turns access control off.
        log: File for warnings and errors; None leaves them to Ray.
        poller: Name of the application that polls the registry, if any.
        engine_options: Options of each engine.
    """

    def __init__(
        self,
        engine: Any,
        header: Mapping[str, Any],
        limits: Limits,
        tokens_url: str | None,
        log: str | None = None,
        poller: str | None = None,
        engine_options: EngineOptions | None = None,
    ) -> None:
        if log is not None:
            open_process_log(log)
        self._engine = RayEngine(engine, limits.timeout_s, engine_options)
        self._backbone = BackboneInfo.from_dict(header)
        self._limits = limits
        self._drain = Drain()
        self._tokens = None if tokens_url is None else _follow(tokens_url)
        followers = {} if self._tokens is None else {"tokens": self._tokens}
        self._looks = Looks(followers, None if poller is None else _Poller(poller).look_age_s)

    async def close(self, timeout_s: float) -> bool:
        """See ``Drain.close``."""
        return await self._drain.close(timeout_s)

    async def tasks(self) -> list[ServingState]:
        """See ``engine_api.Engine``; for the process that started the endpoint, which has no token."""
        return await self._engine.tasks()

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises."""
        if self._tokens is not None:
            # The tokens that are known stay valid, and a new replica would hang in the same store.
            self._tokens.check(may_hang=True)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve, once ``__init__`` is done."""
        if self._limits.request_log is not None:
            open_request_log(self._limits.request_log)
        # Ray Serve's proxy puts the request's id into the response itself.
        app = make_app(
            self._engine,
            self._backbone,
            self._limits,
            self._drain,
            self._tokens,
            self._looks,
            names_responses=False,
        )
        app.state.front.decoder.start()
        return app


class _Poller:
    """Client of the application that polls the registry."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    async def look_age_s(self) -> float:
        """See ``CatalogPoller.look_age_s``."""
        if self._handle is None:
            # Asks Ray Serve's controller and waits for it.
            self._handle = await asyncio.to_thread(serve.get_app_handle, self._name)
        return float(await self._handle.look_age_s.remote())


def _follow(url: str) -> TokenFollower:
    follower = TokenFollower(PromptStore(open_objects(url)))
    follower.start()
    # A replica gets requests once it exists, and answers 503 until it knows the tokens.
    follower.wait_known(_FIRST_TOKENS_S)
    return follower
