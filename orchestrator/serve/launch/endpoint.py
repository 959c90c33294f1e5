"""Starts the endpoint, waits until it answers, and stops all that it started."""

import logging
import math
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
from orchestrator.durations import describe_seconds
from orchestrator.errors import ObjectConflict, RegistryError, ServeError, StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.ownership import ForeignRegistryError
from orchestrator.registry.registry import Registry, RegistryMissing
from orchestrator.serve.engine_api import ServingState
from orchestrator.serve.kept_tokens import KeptTokens, open_kept_tokens
from orchestrator.serve.launch.address import check_port_is_free, choose_port, client_url, is_loopback
from orchestrator.serve.launch.applications import Applications, name_endpoint
from orchestrator.serve.launch.deployments import close_ingress, deploy, served_tasks
from orchestrator.serve.launch.ray_serve import end_unless_used, forget_earlier_serve, serve_session
from orchestrator.serve.options import EngineOptions, ServeOptions
from orchestrator.serve.residency.kept_catalog import open_kept_catalog
from orchestrator.serve.weights import EndpointAbout, claimed, find_claim
from orchestrator.settings import Settings
from orchestrator.store.documents.catalog import Catalog
from orchestrator.store.documents.tokens import Tokens
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.backbone import Backbone, load_backbone

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


def start(settings: Settings, backbone: Backbone, options: ServeOptions) -> Endpoint:
    """Start the endpoint and wait until it answers.

    Args:
        settings: Where store, registry and Ray are.
        backbone: The backbone that serves. Tasks tuned on another one are reported, and not served.
        options: Options of the endpoint.

    Raises:
        ClusterError: Ray cannot be joined or started.
        ServeError: The port is taken, there is no token, the cluster has such an endpoint already, or it did
            not come up. All that was started by then is stopped.
        StoreError: The store cannot be reached.
    """
    host, port = options.host, options.port or choose_port(options.host)
    if settings.ray_address is None and not ray.is_initialized():
        check_port_is_free(host, port)
    store = PromptStore(open_objects(settings.store))
    name = name_endpoint(store.url, options.name)
    kept = open_kept_tokens(settings.store, settings.cache if settings.cache_bytes else None)
    check_access(store, host, auth=options.auth, kept=kept, grace_s=options.limits.token_grace_s)
    publish_first_catalog(settings, Registry(settings.tracking_uri))
    header, arrays = backbone.to_arrays()
    with ExitStack() as stack:
        num_bytes = _OBJECT_STORE_BYTES + 2 * sum(array.nbytes for array in arrays.values())
        session = stack.enter_context(ray_session(settings.ray_address, object_store_bytes=num_bytes))
        place = stack.enter_context(serve_session(session, host, port, is_any_port=options.port == 0))
        about = EndpointAbout(
            store=store.url,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=time.time(),
            owns_serve=place.is_own,
        )
        claim = stack.enter_context(claimed(name, about))
        applications = stack.enter_context(
            Applications(name).held(lambda: claim.about() is not None, close_ingress)
        )
        claim.keep(arrays)
        deploy(applications, session, settings, options, header)
        url = client_url(place.host, place.port)
        _wait_until_ready(url, is_own=place.is_own)
        _wait_until_loaded(url)
        _report_problems(served_tasks(applications), url)
        return Endpoint(url, stack.pop_all())


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
        applications, claim = Applications(endpoint), find_claim(endpoint)
        found = applications.find()
        if claim is None and not found:
            raise ServeError(
                f"--stop: this Ray cluster has no endpoint named {endpoint!r}; see `serve status`"
            )
        if found:
            close_ingress(applications)
        about = None if claim is None else claim.about()
        if claim is not None:
            # First, so that the driver, if it lives, leaves the rest alone.
            claim.give_up()
        applications.delete()
        if about is not None and about.owns_serve:
            end_unless_used()
    return endpoint


def check_access(
    store: PromptStore, host: str, *, auth: bool, kept: KeptTokens | None = None, grace_s: float = math.inf
) -> None:
    """Refuse to start an endpoint without a valid token, and warn of one without access control.

    Args:
        store: Store of the tokens.
        host: Address that the endpoint will listen on.
        auth: Whether a request needs a token.
        kept: The last tokens on this machine, which count while the store cannot be read.
        grace_s: Age from which they do not.

    Raises:
        ServeError: A token is needed, and there is none.
        StoreError: The tokens cannot be read, and this machine has kept none, or none that are new enough.
    """
    if not auth:
        if not is_loopback(host):
            _log.warning(
                "no access control: every client that reaches %s may ask every task", host or "this machine"
            )
        return
    tokens = _read_tokens(store, kept, grace_s)
    if tokens is None or not tokens.has_live(time.time()):
        raise ServeError(
            f"no client could use this endpoint: {store.url} has no valid token; make one with "
            "`ship token create NAME --predict '*'`, or accept every request with --no-auth"
        )


def _read_tokens(store: PromptStore, kept: KeptTokens | None, grace_s: float) -> Tokens | None:
    try:
        found = store.read_tokens()
    except StoreError as error:
        last = None if kept is None else kept.read()
        if last is None or last[1] > grace_s:
            raise
        _log.warning(
            "%s; its tokens of %s ago, which this machine has kept, are used meanwhile, up to an age of %s",
            error,
            describe_seconds(last[1]),
            describe_seconds(grace_s),
        )
        return last[0]
    return None if found is None else found[0]


def publish_first_catalog(settings: Settings, registry: Registry) -> None:
    """Bring the catalog up to date, so that the endpoint starts with today's champions, not last week's.

    Args:
        settings: Settings of the store, and of the cache with the last catalog.
        registry: Registry of the champions. None is made.

    Raises:
        ServeError: MLflow cannot be read, and there is no earlier catalog to serve; or it is not the one that
            the store belongs to.
        StoreError: The store cannot be reached, and this machine has kept no catalog of it.
    """
    try:
        _publish_catalog(PromptStore(open_objects(settings.store)), registry)
    except StoreError as error:
        options = EngineOptions(cache=settings.cache, cache_bytes=settings.cache_bytes)
        kept = open_kept_catalog(settings.store, options)
        if kept is None or kept.read() is None:
            raise
        _log.warning("%s; serving the last catalog that this machine has kept until it is back", error)


def _publish_catalog(store: PromptStore, registry: Registry) -> None:
    try:
        if problem := CatalogWriter(registry, store).update().describe():
            _log.warning("%s", problem)
    except ObjectConflict:
        # Another endpoint on the same store wrote it this very moment.
        return
    except ForeignRegistryError as error:
        raise ServeError(str(error)) from error
    except RegistryError as error:
        if store.read_catalog() is not None:
            _log.warning("%s; serving the champions of the last catalog until it is back", error)
        elif isinstance(error, RegistryMissing) and store.read_owner() is None:
            # Nothing was ever tuned for this store. Another endpoint may write the same at this moment.
            with suppress(ObjectConflict):
                store.write_catalog(Catalog(entries={}), None)
        else:
            raise ServeError(
                f"{error}; there is no earlier catalog in {store.url} to serve either"
            ) from error


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


def serve_forever(
    settings: Settings, backbone_spec: str, options: ServeOptions, on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; then drain, stop all that was started, and return.

    To be called from the main thread, which is the one that gets signals.

    Args:
        settings: Where store, registry and Ray are.
        backbone_spec: See ``ship.backbone.load_backbone``.
        options: Options of the endpoint.
        on_ready: Called with the URL once requests are answered.

    Raises:
        ServeError: The endpoint could not be started.
        BackboneError: The backbone cannot be loaded.
        StoreError: The store cannot be reached.
    """
    with interrupting_signals():
        try:
            with start(
                settings, load_backbone(backbone_spec, image_size=options.image_size), options
            ) as endpoint:
                on_ready(endpoint.url)
                threading.Event().wait()
        except (KeyboardInterrupt, SystemExit):
            # The latter is how Ray words SIGTERM while it starts.
            return
