"""Starts the endpoint, waits until it answers, and stops all that it started."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import httpx
import ray

from orchestrator.cluster.session import ray_session
from orchestrator.cluster.signals import interrupting_signals
from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import ServingState
from orchestrator.serve.launch.address import check_port_is_free, choose_port, client_url, is_loopback
from orchestrator.serve.launch.application import EndpointApplication, name_endpoint
from orchestrator.serve.launch.claim import EndpointAbout, claimed, find_claim
from orchestrator.serve.launch.deployments import (
    close_ingress,
    first_look,
    make_application,
    seen_catalog_age_s,
    served_tasks,
)
from orchestrator.serve.launch.placement import Placement
from orchestrator.serve.launch.ray_serve import end_unless_used, forget_earlier_serve, serve_session
from orchestrator.serve.options import ServeOptions
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore

__all__ = ["Endpoint", "serve_forever", "start", "stop"]


_LISTED_PROBLEMS = 20
# For the engines to come up with a catalog.
_READY_TIMEOUT_S = 180.0
_FIRST_LOADS_S = 10.0
# Prompts and images in flight, beside the backbone. Ray's own default is 30% of the machine's memory.
_OBJECT_STORE_BYTES = 512 << 20
_log = logging.getLogger(__name__)


class Endpoint(ExitStack):
    """An endpoint that answers. Closing it lets requests under way finish, and ends all that was started.

    Attributes:
        url: For clients on this machine.
    """

    def __init__(self, url: str, stack: ExitStack) -> None:
        super().__init__()
        self.url = url
        self.push(stack)


def start(settings: Settings, options: ServeOptions) -> Endpoint:
    """Start the endpoint and wait until it answers.

    Args:
        settings: Where store, registry and Ray are.
        options: Options of the endpoint. Tasks tuned on another backbone are reported, and not served.

    Raises:
        ClusterError: Ray cannot be joined or started.
        ServeError: The port is taken, there is no token, the cluster has such an endpoint already, the
            backbone cannot be loaded, or it did not come up. All that was started by then is stopped.
        StoreError: The store cannot be reached.
    """
    host, port = options.host, options.port or choose_port(options.host)
    if settings.ray_address is None and not ray.is_initialized():
        check_port_is_free(host, port)
    store = PromptStore(open_objects(settings.store))
    name = name_endpoint(store.url, options.name)
    check_access(store, host, auth=options.auth)
    with ExitStack() as stack:
        session = stack.enter_context(
            ray_session(settings.ray_address, object_store_bytes=_OBJECT_STORE_BYTES)
        )
        place = stack.enter_context(serve_session(session, host, port, is_any_port=options.port == 0))
        about = EndpointAbout(
            store=store.url,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=time.time(),
            owns_serve=place.is_own,
        )
        claim = stack.enter_context(claimed(name, about))
        application = stack.enter_context(
            EndpointApplication(name).held(lambda: claim.about() is not None, close_ingress)
        )
        application.run(make_application(settings, options, Placement.of(session, options)))
        url = client_url(place.host, place.port)
        _wait_until_ready(url, is_own=place.is_own)
        _wait_for_first_catalog(application)
        _wait_until_loaded(url)
        _report_problems(served_tasks(application), url)
        return Endpoint(url, stack.pop_all())


def _wait_for_first_catalog(application: EndpointApplication) -> None:
    """Have the engines serve what the registry says today.

    Raises:
        ServeError: There is nothing to serve, or nothing that may be served.
    """
    found = first_look(application)
    if found.refusal is not None:
        raise ServeError(found.refusal)
    if found.warning is not None:
        _log.warning("%s", found.warning)
    published_s = time.monotonic()
    while found.is_written and time.monotonic() < published_s + _READY_TIMEOUT_S:
        asked_s = time.monotonic()
        age_s = seen_catalog_age_s(application)
        if age_s is not None and asked_s - age_s > published_s:
            return
        time.sleep(0.1)


def stop(settings: Settings, name: str | None) -> str:
    """Stop an endpoint of a cluster, such as one whose driver was killed; returns its name.

    Args:
        settings: Where the Ray cluster is, and the store.
        name: Name of the endpoint; None for that of the store.

    Raises:
        ClusterError: Ray cannot be joined.
        ServeError: No cluster is named, or it has no such endpoint.
    """
    if settings.ray_address is None and not ray.is_initialized():
        raise ServeError(
            "--stop: set RAY_ADDRESS to the cluster of the endpoint; one on a Ray of its own ends with its "
            "`ship serve`"
        )
    endpoint = name_endpoint(PromptStore(open_objects(settings.store)).url, name)
    with ray_session(settings.ray_address):
        forget_earlier_serve()
        application, claim = EndpointApplication(endpoint), find_claim(endpoint)
        found = application.find()
        if claim is None and not found:
            raise ServeError(
                f"--stop: this Ray cluster has no endpoint named {endpoint!r}; see `serve status`"
            )
        if found:
            close_ingress(application)
        about = None if claim is None else claim.about()
        if claim is not None:
            # First, so that the driver, if it lives, leaves the rest alone.
            claim.give_up()
        application.delete()
        if about is not None and about.owns_serve:
            end_unless_used()
    return endpoint


def check_access(store: PromptStore, host: str, *, auth: bool) -> None:
    """Refuse to start an endpoint without a valid token, and warn of one without access control.

    Raises:
        ServeError: A token is needed, and there is none.
        StoreError: The tokens cannot be read.
    """
    if not auth:
        if not is_loopback(host):
            _log.warning(
                "no access control: every client that reaches %s may ask every task", host or "this machine"
            )
        return
    found = store.read_tokens()
    if found is None or not found[0].has_live(time.time()):
        raise ServeError(
            f"no client could use this endpoint: {store.url} has no valid token; make one with "
            "`ship token create NAME --predict '*'`, or accept every request with --no-auth"
        )


def _wait_until_ready(url: str, *, is_own: bool) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    problem = "no answer yet"
    while time.monotonic() < deadline_s:
        try:
            reply = httpx.get(f"{url}/readyz", timeout=10.0, trust_env=False)
            if reply.status_code == 200:
                return
            problem = reply.json()["detail"] if "json" in reply.headers["content-type"] else reply.text
        except httpx.HTTPError as error:
            problem = str(error)
        time.sleep(0.1)
    hint = "" if is_own else "; the cluster runs Ray Serve already, which listens where it was told to"
    raise ServeError(f"{url}/readyz: not ready after {_READY_TIMEOUT_S:.0f} s: {problem[:500]}{hint}")


def _wait_until_loaded(url: str) -> None:
    """Give the first loads a while, so that what is wrong with prompts is told at the start."""
    deadline_s = time.monotonic() + _FIRST_LOADS_S
    while time.monotonic() < deadline_s:
        # Requests are answered already, so nothing that goes wrong here stops anything.
        with suppress(httpx.HTTPError, ValueError):
            reply = httpx.get(f"{url}/readyz", timeout=_FIRST_LOADS_S, trust_env=False)
            if reply.status_code == 200 and reply.json()["num_loading"] == 0:
                return
        time.sleep(0.1)


def _report_problems(tasks: list[ServingState], url: str) -> None:
    if not tasks:
        _log.warning("no task has a champion yet; what is tuned and promoted from now on will be served")
    refused = [task for task in tasks if task.problem]
    for task in refused[:_LISTED_PROBLEMS]:
        _log.warning("task %s, version %d is not served: %s", task.task, task.wanted_version, task.problem)
    if len(refused) > _LISTED_PROBLEMS:
        _log.warning("%d more tasks are not served; see %s/v1/tasks", len(refused) - _LISTED_PROBLEMS, url)


def serve_forever(settings: Settings, options: ServeOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; then drain, stop all that was started, and return.

    To be called from the main thread, which is the one that gets signals.

    Args:
        settings: Where store, registry and Ray are.
        options: Options of the endpoint.
        on_ready: Called with the URL once requests are answered.

    Raises:
        ServeError: The endpoint could not be started.
        StoreError: The store cannot be reached.
    """
    with interrupting_signals():
        try:
            with start(settings, options) as endpoint:
                on_ready(endpoint.url)
                threading.Event().wait()
        except (KeyboardInterrupt, SystemExit):
            # The latter is how Ray words SIGTERM while it starts.
            return
