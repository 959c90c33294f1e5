"""Ray Serve deployments of the endpoint: the ingress with its engines, and the poller."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from orchestrator.cluster.session import Session
from orchestrator.errors import ServeError
from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.engine_api import ServingState
from orchestrator.serve.ingress.deployment import Ingress
from orchestrator.serve.launch.applications import Applications
from orchestrator.serve.options import Limits, ServeOptions
from orchestrator.serve.poller import CatalogPoller
from orchestrator.serve.weights import fetch_weights
from orchestrator.settings import Settings

__all__ = ["EngineShare", "close_ingress", "deploy", "served_tasks"]

# Requests under way are given this long when a replica has to go.
DRAIN_S = 20.0
_ASK_S = 30.0
_DRAIN_LOOK_S = 0.2
_log = logging.getLogger(__name__)
# Ray's own limits stand above ours, so that it is ours that refuse: with a reason, when to come again, and
# fairly among tasks. What is between is for requests that are being refused, and for probes. At the door it
# is little, and as many may wait for it: more than that come faster than they can be refused, and a request
# that waits in Ray's proxy takes memory there and is refused late. Ray's 503 costs less.
_ENGINE_HEADROOM = 1024
# Ray Serve's line for every call in every replica costs a twentieth of an engine's time and says no more than
# our own request log, which can be switched on.
_LOGGING = {"enable_access_log": False}
# A replica's own code and its handles run in the loop of Ray's part of it: three threads that hand each
# request to one another cost more than the request does.
_ONE_LOOP = {
    "env_vars": {
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    }
}


@dataclass(frozen=True, kw_only=True)
class EngineShare:
    """Resources of the cluster that each engine gets.

    Attributes:
        cpus: CPUs reserved for it.
        gpus: GPUs reserved for it: one if there are enough, else a part of one.
    """

    cpus: float
    gpus: float

    @classmethod
    def of(cls, session: Session, options: ServeOptions) -> Self:
        """The share of each engine, as the options want it."""
        cpus: float = 1.0
        if options.num_cpus_per_replica is not None:
            cpus = options.num_cpus_per_replica
        elif session.is_own:
            cpus = session.num_cpus / options.num_replicas
        return cls(cpus=cpus, gpus=min(1.0, session.num_gpus / options.num_replicas))

    @property
    def num_threads(self) -> int:
        """Threads of its torch."""
        return max(1, int(self.cpus))


def deploy(
    applications: Applications,
    session: Session,
    settings: Settings,
    options: ServeOptions,
    header: Mapping[str, Any],
) -> None:
    """Deploy everything and wait until it runs.

    Args:
        applications: Names of what is deployed; the weights are those of their endpoint.
        session: The Ray to deploy on.
        settings: Where store and registry are.
        options: Options of the endpoint.
        header: The backbone's header, see ``Backbone.to_arrays``.

    Raises:
        ServeError: See ``Applications.run``.
    """
    log, share = str(settings.serve_log), EngineShare.of(session, options)
    token_store = settings.store if options.auth else None
    own = replace(options.engine, cache=settings.cache, cache_bytes=settings.cache_bytes)
    engine = _engine(options, share).bind(
        header, partial(fetch_weights, applications.endpoint), settings.store, share.num_threads, own, log
    )
    ingress = _ingress(options.limits).bind(
        engine,
        header,
        options.limits,
        token_store,
        log,
        poller=applications.poller,
        engine_options=options.engine,
    )
    poller = _poller().bind(settings.tracking_uri, settings.store, log)
    applications.run(ingress, poller)


def served_tasks(applications: Applications) -> list[ServingState]:
    """States of all tasks of the endpoint.

    Raises:
        ServeError: It does not say.
    """
    try:
        states: list[ServingState] = (
            serve.get_app_handle(applications.ingress).tasks.remote().result(timeout_s=_ASK_S)
        )
    except (RayError, RayServeException, TimeoutError) as error:
        raise ServeError(f"the endpoint does not say what it serves: {error}") from error
    return states


def close_ingress(applications: Applications) -> None:
    """Turn new requests away and let those under way finish."""
    try:
        ingress = serve.get_app_handle(applications.ingress)
        is_empty = ingress.close.remote(DRAIN_S).result(timeout_s=DRAIN_S + 5.0)
    except (RayError, RayServeException, TimeoutError) as error:
        _log.warning("the endpoint ends without draining: %s", error)
        return
    if not is_empty:
        _log.warning("some requests took longer than %.0f s and were broken off", DRAIN_S)


def _engine(options: ServeOptions, share: EngineShare) -> Any:
    most = options.limits.max_inside + _ENGINE_HEADROOM
    return serve.deployment(
        name="Engine",
        num_replicas=options.num_replicas,
        max_ongoing_requests=most,
        max_queued_requests=most,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus, "runtime_env": _ONE_LOOP},
        logging_config=_LOGGING,
    )(EngineReplica)


def _ingress(limits: Limits) -> Any:
    return serve.deployment(
        name="Ingress",
        max_ongoing_requests=limits.max_at_door,
        max_queued_requests=limits.max_at_door - limits.max_inside,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        # Reserves nothing: it waits more than it works, and two cores must do for everything.
        ray_actor_options={"num_cpus": 0, "runtime_env": _ONE_LOOP},
        logging_config=_LOGGING,
    )(serve.ingress()(Ingress))


def _poller() -> Any:
    return serve.deployment(
        name="CatalogPoller",
        num_replicas=1,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        ray_actor_options={"num_cpus": 0},
    )(CatalogPoller)
