"""An endpoint's claim to its name on a Ray cluster: an entry of the cluster's own key-value store.

It stays until the endpoint is stopped, whatever becomes of the process that started it, and takes no process.
"""

import json
import time
from dataclasses import asdict, dataclass

from ray.experimental import internal_kv

from orchestrator.errors import ServeError

__all__ = ["Claim", "EndpointAbout", "find_claim", "make_claim"]

_NAMESPACE = b"ship"


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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim to the name of an endpoint.

    Attributes:
        name: Name of the endpoint.
        about: Identity of the endpoint, by which its claim differs from a later one to the same name.
    """

    name: str
    about: EndpointAbout

    def holds(self) -> bool:
        """Whether it was not given up since."""
        return find_claim(self.name) == self

    def give_up(self) -> None:
        """Give it up, if it still holds."""
        if self.holds():
            internal_kv._internal_kv_del(self.name.encode(), namespace=_NAMESPACE)


def find_claim(name: str) -> Claim | None:
    """The claim to a name of the cluster that this process has joined, if there is one."""
    found = internal_kv._internal_kv_get(name.encode(), namespace=_NAMESPACE)
    return None if found is None else Claim(name=name, about=EndpointAbout(**json.loads(found)))


def make_claim(name: str, about: EndpointAbout) -> Claim:
    """Claim a name. Of two processes that try it at once, one gets it.

    Raises:
        ServeError: The name is taken.
    """
    content = json.dumps(asdict(about)).encode()
    is_taken = internal_kv._internal_kv_put(name.encode(), content, overwrite=False, namespace=_NAMESPACE)
    if is_taken:
        found = find_claim(name)
        other = "it has just ended" if found is None else found.about
        raise ServeError(
            f"an endpoint named {name!r} is on this Ray cluster already ({other}); end "
            f"it with `ship serve --stop --name {name}`, or set RAY_ADDRESS to another cluster"
        )
    return Claim(name=name, about=about)
