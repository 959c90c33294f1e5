"""Starts the endpoint, waits until it answers, and stops all that it started."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import ray

from orchestrator.cluster.detached import end_detached, joined_detached, start_detached
from orchestrator.cluster.session import Session, ray_session
from orchestrator.cluster.signals import interrupting_signals
from orchestrator.cluster.variables import SERVING, variables_of_ray
from orchestrator.errors import ClusterError, ServeError
from orchestrator.serve.kept_tokens import open_kept_tokens
from orchestrator.serve.launch.address import check_port_is_free, choose_port, client_url
from orchestrator.serve.launch.application import EndpointApplication, name_endpoint
from orchestrator.serve.launch.checks import check_access, check_backbone
from orchestrator.serve.launch.claim import EndpointAbout, find_claim, make_claim
from orchestrator.serve.launch.coming_up import wait_until_up
from orchestrator.serve.launch.deployments import end_ingress, make_application
from orchestrator.serve.launch.detached import (
    DetachedEndpoint,
    find_detached,
    forget_detached,
    note_detached,
)
from orchestrator.serve.launch.placement import Placement
from orchestrator.serve.launch.ray_serve import end_unless_used, forget_earlier_serve, open_serve
from orchestrator.serve.options import ServeOptions
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Endpoint", "serve_forever", "start", "stop"]


# Prompts and images in flight, beside the backbone. Ray's own default is 30% of the machine's memory.
_OBJECT_STORE_BYTES = 512 << 20
_log = logging.getLogger(__name__)


class Endpoint(ExitStack):
    """An endpoint that answers. Closing it lets requests under way finish, and ends all that was started.

    Attributes:
        url: For clients on this machine.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self._is_left = False

    def at_end(self, end: Callable[[], object]) -> None:
        """Call ``end`` when the endpoint is closed, but not if it is left."""
        self.callback(lambda: None if self._is_left else end())

    def leave(self) -> None:
        """Disconnect from an endpoint that stays as it is, until it is stopped."""
        self._is_left = True
        self.close()


def start(settings: Settings, options: ServeOptions, *, detach: bool = False) -> Endpoint:
    """Start the endpoint and wait until it answers.

    Args:
        settings: Where store, registry and Ray are.
        options: Options of the endpoint. Tasks tuned on other backbones are reported, and not served.
        detach: Whether it is to be left: a Ray that is started for it outlives this process then.

    Raises:
        ClusterError: Ray cannot be joined or started.
        ServeError: The port is taken, there is no token, the cluster has such an endpoint already, the
            backbone cannot be loaded, or it did not come up. All that was started by then is stopped.
        StoreError: The store cannot be reached.
    """
    host, port = options.host, options.port or choose_port(options.host)
    is_own = settings.ray_address is None and not ray.is_initialized()
    if is_own:
        check_port_is_free(host, port)
    store = PromptStore(open_objects(settings.store))
    name = name_endpoint(store.url, options.name)
    kept = open_kept_tokens(settings.store, settings.cache if settings.cache_bytes else None)
    check_access(store, host, auth=options.auth, kept=kept, grace_s=options.limits.token_grace_s)
    for spec in options.backbones:
        check_backbone(spec, is_local=is_own)
    with ExitStack() as guard:
        endpoint = guard.enter_context(Endpoint(client_url(host, port)))
        session = _open_session(endpoint, settings, name, detach=detach and is_own)
        place = open_serve(host, port, is_any_port=options.port == 0)
        endpoint.url = client_url(place.host, place.port)
        # On a Ray of our own it ends with Ray.
        if place.is_own and not session.is_own:
            endpoint.at_end(end_unless_used)
        about = EndpointAbout(
            store=store.url,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=time.time(),
            owns_serve=place.is_own,
        )
        claim = make_claim(name, about)
        endpoint.at_end(claim.give_up)
        application = EndpointApplication(name)
        application.check_absent()
        # If `ship serve --stop` has ended the claim, what has the name now is another endpoint.
        endpoint.at_end(lambda: application.end(end_ingress) if claim.holds() else None)
        application.run(make_application(settings, options, Placement.of(session, options)))
        wait_until_up(application, endpoint.url, is_own=place.is_own)
        guard.pop_all()
        return endpoint


def _open_session(endpoint: Endpoint, settings: Settings, name: str, *, detach: bool) -> Session:
    if not detach:
        session = ray_session(settings.ray_address, object_store_bytes=_OBJECT_STORE_BYTES)
        with variables_of_ray(SERVING):
            return endpoint.enter_context(session)
    if (found := find_detached(settings)) is not None:
        raise ServeError(
            f"endpoint {found.name!r} of this home runs already, detached, at {found.url}; end it with `ship "
            "serve --stop`, or choose another --home"
        )
    with variables_of_ray(SERVING):
        own = start_detached(object_store_bytes=_OBJECT_STORE_BYTES)
    endpoint.at_end(lambda: end_detached(own.folder))
    note_detached(settings, DetachedEndpoint(name=name, url=endpoint.url, ray=own))
    endpoint.at_end(lambda: forget_detached(settings))
    # Nothing else runs there: its CPUs are shared as those of a Ray that ends with this process.
    return replace(endpoint.enter_context(joined_detached(own.address)), is_own=True)


def stop(settings: Settings, name: str | None) -> str:
    """Stop a detached endpoint, or one of a cluster, such as one whose driver was killed; returns its name.

    Args:
        settings: Where the Ray cluster is, and the store.
        name: Name of the endpoint; None for that of the store.

    Raises:
        ClusterError: Ray cannot be joined.
        ServeError: No cluster is named and none runs detached, or it has no such endpoint.
    """
    wanted = name_endpoint(PromptStore(open_objects(settings.store)).url, name)
    if settings.ray_address is None and not ray.is_initialized():
        return _stop_detached(settings, wanted)
    with ray_session(settings.ray_address):
        forget_earlier_serve()
        application, claim = EndpointApplication(wanted), find_claim(wanted)
        if claim is None and not application.find():
            raise ServeError(f"--stop: this Ray cluster has no endpoint named {wanted!r}; see `serve status`")
        if application.find():
            end_ingress(application)
        if claim is not None:
            # First, so that the driver, if it lives, leaves the rest alone.
            claim.give_up()
        application.delete()
        if claim is not None and claim.about.owns_serve:
            end_unless_used()
    return wanted


def _stop_detached(settings: Settings, wanted: str) -> str:
    found = find_detached(settings)
    if found is None:
        raise ServeError(
            "--stop: set RAY_ADDRESS to the cluster of the endpoint; one on a Ray of its own ends with its "
            "`ship serve`, unless that was given --detach"
        )
    if found.name != wanted:
        raise ServeError(f"--stop: the endpoint that runs detached is {found.name!r}, not {wanted!r}")
    try:
        with joined_detached(found.ray.address):
            forget_earlier_serve()
            EndpointApplication(wanted).end(end_ingress)
    except ClusterError as error:
        _log.warning("%s; ending what is left of it", error)
    end_detached(found.ray.folder)
    forget_detached(settings)
    return wanted


def serve_forever(
    settings: Settings, options: ServeOptions, on_ready: Callable[[str], None], *, detach: bool = False
) -> None:
    """Serve until SIGINT or SIGTERM; then drain, stop all that was started, and return.

    To be called from the main thread, which is the one that gets signals.

    Args:
        settings: Where store, registry and Ray are.
        options: Options of the endpoint.
        on_ready: Called with the URL once requests are answered.
        detach: Whether to return then, and leave the endpoint to itself.

    Raises:
        ServeError: The endpoint could not be started.
        StoreError: The store cannot be reached.
    """
    with interrupting_signals():
        try:
            with start(settings, options, detach=detach) as endpoint:
                if detach:
                    endpoint.leave()
                on_ready(endpoint.url)
                if not detach:
                    threading.Event().wait()
        except (KeyboardInterrupt, SystemExit):
            # The latter is how Ray words SIGTERM while it starts.
            return
