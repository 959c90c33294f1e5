"""The endpoint as one Ray Serve application: the ingress with its engines, and the poller.

The deployments are named by their import paths: what builds the application loads neither torch nor MLflow.
"""

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import RayServeException

from orchestrator.errors import ServeError
from orchestrator.serve.backbone_source import BackboneSource
from orchestrator.serve.engine_api import FirstLook, Readiness, ServingState
from orchestrator.serve.ingress.engine_inside import EngineArguments
from orchestrator.serve.launch.application import EndpointApplication
from orchestrator.serve.launch.placement import Placement
from orchestrator.serve.options import Limits, ServeOptions
from orchestrator.serve.watch import LOOK_LIMIT_S
from orchestrator.settings import Settings

__all__ = [
    "end_ingress",
    "first_look",
    "make_application",
    "name_engines",
    "seen_catalog_age_s",
    "served_tasks",
]

# Requests under way are given this long when a replica has to go.
DRAIN_S = 20.0
# An ingress writes what is left to write after that.
_CLOSE_MORE_S = 10.0
_ASK_S = 30.0
# Where all replicas are replaced, as `serve deploy` does after a change of arguments, a quarter more of them,
# one at least, comes first, and an old one goes once a new one answers. Where there is no room, they stay.
_SURGE_PERCENT = 25
_DRAIN_LOOK_S = 0.2
# Ray Serve finds a dead replica when it next asks for its health, by default each ten seconds.
_HEALTH_LOOK_S = 2.0
_log = logging.getLogger(__name__)
# Ray's own limits stand above ours, so that it is ours that refuse: with a reason, when to come again, and
# fairly among tasks. What is between is for requests that are being refused, and for probes. At the door it
# is little, and as many may wait for it: more than that come faster than they can be refused, and a request
# that waits in Ray's proxy takes memory there and is refused late. Ray's 503 costs less.
_ENGINE_HEADROOM = 1024
_ENGINE = "orchestrator.serve.engine.deployment.EngineReplica"
_INGRESS = "orchestrator.serve.ingress.deployment.IngressReplica"
_POLLER = "orchestrator.serve.poller.CatalogPoller"
_POLLER_NAME = "CatalogPoller"
_INGRESS_NAME, _ENGINE_NAME, _NAME_CHARS = "Ingress", "Engine", 40
# Ray Serve names the actor of a replica by its application, its deployment and a number of its own.
_ACTOR_OF = "SERVE_REPLICA::{}#{}#"
_ACTORS = "serve"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
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


def make_application(settings: Settings, options: ServeOptions, placement: Placement) -> Application:
    """The application, to be run under any name.

    Args:
        settings: Where store, registry and this machine's cache are.
        options: Options of the endpoint.
        placement: Numbers of replicas, and resources of each engine.
    """
    log, token_store = str(settings.serve_log), settings.store if options.auth else None
    own = replace(options.engine, cache=settings.cache, cache_bytes=settings.cache_bytes)
    sources = {
        name: BackboneSource.of(spec, options.image_size, own, settings.store)
        for name, spec in name_engines(options.backbones).items()
    }
    engines: Any
    if placement.ingresses is None:
        [source] = sources.values()
        engines = EngineArguments(
            source=source, store_url=settings.store, num_threads=placement.num_threads, options=own
        )
    else:
        engines = [
            _engine(name, options, placement).bind(
                source, settings.store, placement.num_threads, own, log, is_alone=len(sources) == 1
            )
            for name, source in sources.items()
        ]
    poller = _poller().bind(settings.tracking_uri, settings.store, log, options=own)
    application: Application = _ingress(options.limits, placement).bind(
        engines,
        options.limits,
        token_store,
        log,
        poller=poller,
        engine_options=own,
        cache=settings.cache if settings.cache_bytes else None,
        store_url=settings.store,
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


def end_ingress(application: EndpointApplication) -> None:
    """Turn new requests away at every ingress, let those under way finish, and end what has closed.

    Ray Serve itself keeps each ingress behind HAProxy for half a minute, for what may be on its way to it: a
    replica that is replaced needs that, and an endpoint that ends does not.
    """
    try:
        ingress = serve.get_app_handle(application.name)
        closing = ingress.broadcast("close", DRAIN_S)
        closed = closing.results(timeout_s=DRAIN_S + _CLOSE_MORE_S, return_exceptions=True)
    except (RayError, RayServeException, TimeoutError) as error:
        _log.warning("the endpoint ends without draining: %s", error)
        return
    # One that has died drains nothing any more.
    if False in closed:
        _log.warning("some requests took longer than %.0f s and were broken off", DRAIN_S)
    start = _ACTOR_OF.format(application.name, _INGRESS_NAME)
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == _ACTORS and actor["name"].startswith(start):
            # It may have died meanwhile.
            with suppress(ValueError, RayError):
                ray.kill(ray.get_actor(actor["name"], namespace=_ACTORS))


def name_engines(specs: Sequence[str]) -> dict[str, str]:
    """Backbones by the names of their engines' deployments: ``Engine`` if there is one alone."""
    if len(specs) == 1:
        return {_ENGINE_NAME: specs[0]}
    names: dict[str, str] = {}
    for number, spec in enumerate(specs, start=1):
        short = _NOT_IN_NAMES.sub("-", spec.rstrip("/").rpartition("/")[2]).strip("-")[:_NAME_CHARS]
        name = f"{_ENGINE_NAME}-{short}"
        names[name if name not in names else f"{name}-{number}"] = spec
    return names


def _engine(name: str, options: ServeOptions, placement: Placement) -> Any:
    most = options.limits.max_inside + _ENGINE_HEADROOM
    return serve.deployment(
        name=name,
        **placement.of_engines(),
        max_surge_percent=_SURGE_PERCENT,
        max_ongoing_requests=most,
        max_queued_requests=most,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        health_check_period_s=_HEALTH_LOOK_S,
        ray_actor_options={
            "num_cpus": placement.cpus,
            "num_gpus": placement.gpus,
            "runtime_env": _ONE_LOOP,
        },
        logging_config=_LOGGING,
    )(_ENGINE)


def _ingress(limits: Limits, placement: Placement) -> Any:
    resources: dict[str, float] = {"num_cpus": placement.cpus, "num_gpus": placement.gpus}
    if placement.ingresses is not None:
        # Without an engine it waits more than it works, and two cores must do for everything.
        resources = {"num_cpus": 0}
    return serve.deployment(
        name=_INGRESS_NAME,
        **placement.of_ingresses(),
        max_surge_percent=_SURGE_PERCENT,
        max_ongoing_requests=limits.max_at_door,
        max_queued_requests=limits.max_at_door - limits.max_inside,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        health_check_period_s=_HEALTH_LOOK_S,
        ray_actor_options={**resources, "runtime_env": _ONE_LOOP},
        logging_config=_LOGGING,
    )(_INGRESS)


def _poller() -> Any:
    return serve.deployment(
        name=_POLLER_NAME,
        num_replicas=1,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_S,
        health_check_period_s=_HEALTH_LOOK_S,
        ray_actor_options={"num_cpus": 0},
    )(_POLLER)
