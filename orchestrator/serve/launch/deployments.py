"""The endpoint as one Ray Serve application: the ingress with its engines, and the poller.

The deployments are named by their import paths: what builds the application loads neither torch nor MLflow.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import RayServeException

from orchestrator.cluster.session import Session
from orchestrator.errors import ServeError
from orchestrator.serve.backbone_source import BackboneSource
from orchestrator.serve.engine_api import FirstLook, Readiness, ServingState
from orchestrator.serve.launch.application import EndpointApplication
from orchestrator.serve.options import Limits, ServeOptions
from orchestrator.serve.watch import LOOK_LIMIT_S
from orchestrator.settings import Settings

__all__ = [
    "EngineShare",
    "close_ingress",
    "first_look",
    "make_application",
    "seen_catalog_age_s",
    "served_tasks",
]

# Requests under way are given this long when a replica has to go.
DRAIN_S = 20.0
_ASK_S = 30.0
_DRAIN_LOOK_S = 0.2
_log = logging.getLogger(__name__)
# Ray's own limits stand above ours, so that it is ours that refuse: with a reason, when to come again, and
# fairly among tasks. What is between is for requests that are being refused, and for probes. At the door it
# is little, and as many may wait for it: more than that come faster than they can be refused, and a request
# that waits in Ray's proxy takes memory there and is refused late. Ray's 503 costs less.
_DOOR_HEADROOM, _ENGINE_HEADROOM = 128, 1024
# Ray Serve's line for every call in every replica costs a twentieth of an engine's time and says no more than
# our own request log, which can be switched on.
_ENGINE = "orchestrator.serve.engine.deployment.EngineReplica"
_INGRESS = "orchestrator.serve.ingress.deployment.IngressReplica"
_POLLER = "orchestrator.serve.poller.CatalogPoller"
_POLLER_NAME = "CatalogPoller"
_LOGGING = {"enable_access_log": False}


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


def make_application(settings: Settings, options: ServeOptions, share: EngineShare) -> Application:
    """The application, to be run under any name.

    Args:
        settings: Where store, registry and this machine's cache are.
        options: Options of the endpoint.
        share: Resources of each engine.
    """
    log, token_store = str(settings.serve_log), settings.store if options.auth else None
    own = replace(options.engine, cache=settings.cache, cache_bytes=settings.cache_bytes)
    source = BackboneSource.of(options.backbone, options.image_size, own)
    engine = _engine(options, share).bind(source, settings.store, share.num_threads, own, log)
    poller = _poller().bind(settings.tracking_uri, settings.store, log, options=own)
    application: Application = _ingress(options.limits).bind(
        engine, options.limits, token_store, log, poller=poller, engine_options=own
    )
    return application


def served_tasks(application: EndpointApplication) -> list[ServingState]:
    """States of all tasks of the endpoint.

    Raises:
        ServeError: It does not say.
    """
    try:
        states: list[ServingState] = (
            serve.get_app_handle(application.name).tasks.remote().result(timeout_s=_ASK_S)
        )
    except (RayError, RayServeException, TimeoutError) as error:
        raise ServeError(f"the endpoint does not say what it serves: {error}") from error
    return states


def first_look(application: EndpointApplication) -> FirstLook:
    """What the poller's first look at the registry has led to; waits for its end.

    Raises:
        ServeError: The poller does not say.
    """
    try:
        poller = serve.get_deployment_handle(_POLLER_NAME, application.name)
        found: FirstLook = poller.first_look.remote().result(timeout_s=LOOK_LIMIT_S)
    except (RayError, RayServeException, TimeoutError) as error:
        raise ServeError(f"the endpoint does not say which champions it serves: {error}") from error
    return found


def seen_catalog_age_s(application: EndpointApplication) -> float | None:
    """Seconds since an engine last saw that its catalog is current; None if none has yet."""
    with suppress(RayError, RayServeException, TimeoutError):
        handle = serve.get_app_handle(application.name)
        readiness: Readiness = handle.readiness.remote().result(timeout_s=_ASK_S)
        return readiness.catalog_age_s
    return None


def close_ingress(application: EndpointApplication) -> None:
    """Turn new requests away and let those under way finish."""
    try:
        ingress = serve.get_app_handle(application.name)
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
        ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus},
        logging_config=_LOGGING,
    )(_ENGINE)


def _ingress(limits: Limits) -> Any:
    return serve.deployment(
        name="Ingress",
        max_ongoing_requests=limits.max_inside + _DOOR_HEADROOM,
        max_queued_requests=_DOOR_HEADROOM,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        # Reserves nothing: it waits more than it works, and two cores must do for everything.
        ray_actor_options={"num_cpus": 0},
        logging_config=_LOGGING,
    )(_INGRESS)


def _poller() -> Any:
    return serve.deployment(
        name=_POLLER_NAME,
        num_replicas=1,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        ray_actor_options={"num_cpus": 0},
    )(_POLLER)
