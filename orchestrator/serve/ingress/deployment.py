"""The ingress deployment: the HTTP interface of ``app`` in a Ray Serve replica."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.exceptions import RayServeException

from orchestrator.cluster.loopback import keep_replica_on_loopback
from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import Engine, Readiness, ResidencyStats, ServingState
from orchestrator.serve.ingress.app import make_app, read_families
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.ingress.engine_inside import EngineArguments, EngineInside
from orchestrator.serve.ingress.engines import Engines
from orchestrator.serve.ingress.front import Front
from orchestrator.serve.ingress.keeping import Keeper
from orchestrator.serve.ingress.looks import Looks
from orchestrator.serve.ingress.middleware.access_log import open_request_log
from orchestrator.serve.ingress.middleware.drain import Drain
from orchestrator.serve.ingress.middleware.token_follower import TokenFollower
from orchestrator.serve.ingress.peers import Families, Peers
from orchestrator.serve.ingress.sightings import Sightings
from orchestrator.serve.keep_rules import read_rules
from orchestrator.serve.kept_tokens import open_kept_tokens
from orchestrator.serve.options import EngineOptions, Limits
from orchestrator.serve.process_log import open_process_log
from orchestrator.store.kept.pictures import KeepLimits, KeptPictures
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.tracing import open_tracer

__all__ = ["Ingress", "IngressReplica"]

_FIRST_TOKENS_S = 10.0
_LOOK_S = 0.02


class Ingress:
    """The deployment's class; ``deployments`` names its ``IngressReplica``.

    Args:
        engines: Handles of the engine deployments, one for each backbone; or what an engine in this process
            is made from.
        limits: Limits on requests.
        tokens_url: URL of the store with the tokens; None turns access control off.
        log: File for warnings and errors; None leaves them to Ray.
        poller: Handle of the deployment that polls the registry, if any.
        engine_options: Options of each engine.
        cache: Folder on this machine for the last tokens; None keeps none.
        store_url: URL of the store that pictures are kept in; None keeps none.
    """

    def __init__(
        self,
        engines: Sequence[Any] | EngineArguments,
        limits: Limits,
        tokens_url: str | None,
        log: str | None = None,
        poller: Any = None,
        engine_options: EngineOptions | None = None,
        cache: str | None = None,
        store_url: str | None = None,
    ) -> None:
        if log is not None:
            open_process_log(log)
        keep_replica_on_loopback()
        self._tracer = open_tracer(os.environ, "ingress")
        self._peers = _find_peers()
        self._clients: list[RayEngine] | list[EngineInside]
        if isinstance(engines, EngineArguments):
            self._clients = [EngineInside(engines.start(), limits.timeout_s, self._peers)]
        else:
            self._clients = [RayEngine(engine, limits.timeout_s, engine_options) for engine in engines]
        self._engine: Engine = self._clients[0]
        self._front: Front | None = None
        self._limits = limits
        self._drain = Drain()
        self._tokens = None if tokens_url is None else _follow(tokens_url, cache, limits.token_grace_s)
        followers = {} if self._tokens is None else {"tokens": self._tokens}
        self._looks = Looks(followers, None if poller is None else poller.standing.remote)
        self._sightings = Sightings()
        if poller is not None:
            self._sightings = Sightings(poller.see_answers.remote, poller.drift.remote)
        self._keeper = _keep(limits, store_url)

    async def close(self, timeout_s: float, flush_s: float = 5.0) -> bool:
        """See ``Drain.close``; then write what is left to write of the answers, for ``flush_s`` at most."""
        has_finished = await self._drain.close(timeout_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(flush_s):
                await self._flush()
        return has_finished

    async def tasks(self) -> list[ServingState]:
        """See ``engine_api.Engine``; for the process that started the endpoint, which has no token."""
        return await self._engine.tasks()

    async def readiness(self) -> Readiness:
        """See ``engine_api.Engine``; for the process that started the endpoint, as it is at this moment."""
        return await self._engine.readiness()

    async def families(self) -> tuple[str, Families]:
        """Name and metrics of this ingress, for the page of another one."""
        if self._peers is None or self._front is None:
            return "", []
        own = await read_families(self._front.metrics, self._looks, self._limits, self._tokens)
        return self._peers.name, own

    async def _flush(self) -> None:
        while self._keeper is not None and self._keeper.is_busy:
            await asyncio.sleep(_LOOK_S)
        for client in self._clients:
            if isinstance(client, EngineInside):
                await asyncio.to_thread(client.close)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    async def stats(self) -> list[ResidencyStats]:
        """Which prompts an engine in this process holds, for the page of another ingress."""
        inside = [client for client in self._clients if isinstance(client, EngineInside)]
        return [stats for client in inside for stats in await client.own_stats()]

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises."""
        if self._tokens is not None:
            # The tokens that are known stay valid, and a new replica would hang in the same store.
            self._tokens.check(may_hang=True)
        for client in self._clients:
            client.check()

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve, once ``__init__`` is done.

        Raises:
            ServeError: Two of the backbones are one.
        """
        # Before an engine has started there is nothing to answer with, and no size to decode pictures to.
        found = await asyncio.gather(*(client.backbone() for client in self._clients))
        backbones = {info.fingerprint: info for info in found}
        if len(backbones) < len(found):
            named = ", ".join(f"{info.name!r} ({info.fingerprint[:12]})" for info in found)
            raise ServeError(f"two backbones of this endpoint are the same: {named}; name each one once")
        if len(found) > 1:
            self._engine = Engines(dict(zip(backbones, self._clients, strict=True)), backbones)
        if self._limits.request_log is not None:
            open_request_log(self._limits.request_log)
        # Ray Serve's proxy puts the request's id into the response itself.
        app = make_app(
            self._engine,
            found,
            self._limits,
            self._drain,
            self._tokens,
            self._looks,
            self._peers,
            sightings=self._sightings,
            keeper=self._keeper,
            names_responses=False,
            tracer=self._tracer,
        )
        self._front = app.state.front
        app.state.front.decoder.start()
        return app


# What Ray Serve makes replicas of.
IngressReplica = serve.ingress()(Ingress)


def _find_peers() -> Peers | None:
    """The ingresses of the endpoint; None outside of Ray Serve."""
    try:
        replica = serve.get_replica_context()
    except RayServeException:
        return None
    deployment, app = replica.deployment, replica.app_name
    return Peers(replica.replica_id.unique_id, lambda: serve.get_deployment_handle(deployment, app))


def _keep(limits: Limits, store_url: str | None) -> Keeper | None:
    if not limits.keep or store_url is None:
        return None
    most = KeepLimits(
        pictures=limits.keep_pictures, num_bytes=limits.keep_bytes, age_s=limits.keep_days * 86400.0
    )
    keeper = Keeper(KeptPictures(open_objects(store_url)), read_rules(limits.keep), most)
    keeper.start()
    return keeper


def _follow(url: str, cache: str | None, grace_s: float) -> TokenFollower:
    follower = TokenFollower(PromptStore(open_objects(url)), open_kept_tokens(url, cache), grace_s=grace_s)
    follower.start()
    # A replica gets requests once it exists, and answers 503 until it knows the tokens.
    if not follower.wait_known(_FIRST_TOKENS_S):
        follower.take_over_kept()
    return follower
