"""An endpoint's claim to its name on a Ray cluster: a detached actor of that name.

It lives until the endpoint is stopped, whatever becomes of the process that started it.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.errors import ServeError

__all__ = ["Claim", "ClaimHolder", "EndpointAbout", "find_claim", "make_claim"]

_NAMESPACE = "ship"
_PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class EndpointAbout:
    """Identity of an endpoint, for the messages of others.

    Attributes:
        store: URL of its store, without secrets.
        host: Host of its driver.
        pid: Process id of its driver.
        started_s: Seconds since the epoch.
        owns_serve: Whether it started the cluster's Ray Serve.
    """

    store: str
    host: str
    pid: int
    started_s: float
    owns_serve: bool

    def __str__(self) -> str:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started_s))
        return f"store {self.store}, started {started} by process {self.pid} on {self.host}"


class ClaimHolder:
    """The actor's class."""

    def __init__(self, about: EndpointAbout) -> None:
        self._about = about

    def about(self) -> EndpointAbout:
        """Identity of the endpoint."""
        return self._about


class Claim:
    """A claim to the name of an endpoint, held by an actor.

    Args:
        holder: Handle of the actor.
    """

    def __init__(self, holder: Any) -> None:
        self._holder = holder

    def about(self) -> EndpointAbout | None:
        """Identity of the endpoint; None if the claim was given up."""
        try:
            about: EndpointAbout = ray.get(self._holder.about.remote(), timeout=_PATIENCE_S)
        except RayError:
            return None
        return about

    def give_up(self) -> None:
        """End the actor, if it still runs."""
        with suppress(RayError):
            ray.kill(self._holder)


def find_claim(name: str) -> Claim | None:
    """The claim to a name of the cluster that this process has joined, if there is one."""
    try:
        return Claim(ray.get_actor(name, namespace=_NAMESPACE))
    except ValueError:
        return None


def make_claim(name: str, about: EndpointAbout) -> Claim:
    """Claim a name. Of two processes that try it at once, one gets it.

    Raises:
        ServeError: The name is taken.
    """
    actor = ray.remote(num_cpus=0, max_restarts=0)(ClaimHolder)
    try:
        return Claim(actor.options(name=name, namespace=_NAMESPACE, lifetime="detached").remote(about))
    except ValueError as error:
        found = find_claim(name)
        other = None if found is None else found.about()
        raise ServeError(
            f"an endpoint named {name!r} is on this Ray cluster already ({other or 'it says nothing'}); end "
            f"it with `ship serve --stop --name {name}`, or set RAY_ADDRESS to another cluster"
        ) from error
