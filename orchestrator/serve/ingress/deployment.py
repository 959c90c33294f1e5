"""The ingress deployment: the HTTP interface of ``app`` in a Ray Serve replica."""

from typing import Any

from fastapi import FastAPI
from ray import serve

from orchestrator.serve.engine_api import Readiness, ServingState
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

__all__ = ["Ingress", "IngressReplica"]

_FIRST_TOKENS_S = 10.0


class Ingress:
    """The deployment's class; ``deployments`` names its ``IngressReplica``.

    Args:
        engine: Handle of the engine deployment.
        limits: Limits on requests.
        tokens_url: URL of the store with the tokens; None turns access control off.
        log: File for warnings and errors; None leaves them to Ray.
        poller: Handle of the deployment that polls the registry, if any.
        engine_options: Options of each engine.
    """

    def __init__(
        self,
        engine: Any,
        limits: Limits,
        tokens_url: str | None,
        log: str | None = None,
        poller: Any = None,
        engine_options: EngineOptions | None = None,
    ) -> None:
        if log is not None:
            open_process_log(log)
        self._engine = RayEngine(engine, limits.timeout_s, engine_options)
        self._limits = limits
        self._drain = Drain()
        self._tokens = None if tokens_url is None else _follow(tokens_url)
        followers = {} if self._tokens is None else {"tokens": self._tokens}
        self._looks = Looks(followers, None if poller is None else poller.look_age_s.remote)

    async def close(self, timeout_s: float) -> bool:
        """See ``Drain.close``."""
        return await self._drain.close(timeout_s)

    async def tasks(self) -> list[ServingState]:
        """See ``engine_api.Engine``; for the process that started the endpoint, which has no token."""
        return await self._engine.tasks()

    async def readiness(self) -> Readiness:
        """See ``engine_api.Engine``; for the process that started the endpoint, as it is at this moment."""
        return await self._engine.readiness()

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises."""
        if self._tokens is not None:
            # The tokens that are known stay valid, and a new replica would hang in the same store.
            self._tokens.check(may_hang=True)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve, once ``__init__`` is done."""
        # Before an engine has started there is nothing to answer with, and no size to decode pictures to.
        backbone = await self._engine.backbone()
        if self._limits.request_log is not None:
            open_request_log(self._limits.request_log)
        # Ray Serve's proxy puts the request's id into the response itself.
        app = make_app(
            self._engine,
            backbone,
            self._limits,
            self._drain,
            self._tokens,
            self._looks,
            names_responses=False,
        )
        app.state.front.decoder.start()
        return app


# What Ray Serve makes replicas of.
IngressReplica = serve.ingress()(Ingress)


def _follow(url: str) -> TokenFollower:
    follower = TokenFollower(PromptStore(open_objects(url)))
    follower.start()
    # A replica gets requests once it exists, and answers 503 until it knows the tokens.
    follower.wait_known(_FIRST_TOKENS_S)
    return follower
