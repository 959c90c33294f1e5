"""The Ray Serve applications of one endpoint on a cluster that others may use too.

Their names follow the store, so that endpoints of different stores never overwrite each other. What exists
already is refused, and what is deleted is what this endpoint deployed.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, Self

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from orchestrator.errors import ServeError

__all__ = ["Applications", "ServeApi", "name_endpoint"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class ServeApi(Protocol):
    """The part of ``ray.serve`` that is used here."""

    def status(self) -> Any:
        """Status with ``applications``, by name."""
        ...

    def run_many(self, targets: Sequence[Any]) -> Any:
        """Deploy applications and wait until they run."""
        ...

    def delete(self, name: str) -> None:
        """Delete an application and wait until it is gone."""
        ...


def name_endpoint(store_url: str, name: str | None = None) -> str:
    """Name of an endpoint: the given one, else one by its store.

    Args:
        store_url: Canonical URL of the store, without secrets.
        name: The user's choice.

    Raises:
        ServeError: It is no name.
    """
    if name is None:
        return f"ship-{hashlib.sha256(store_url.encode()).hexdigest()[:8]}"
    if not _NAME.fullmatch(name):
        raise ServeError(
            f"--name {name[:80]!r}: expected 1 to 40 characters of a-z, 0-9 and '-', starting with a letter "
            "or digit"
        )
    return name


class Applications:
    """The applications of the endpoint of that name.

    Args:
        endpoint: Name of the endpoint.
        api: Ray Serve.
    """

    def __init__(self, endpoint: str, api: ServeApi = serve) -> None:
        self.endpoint = endpoint
        self.ingress, self.poller = endpoint, f"{endpoint}-poller"
        self._api = api

    def find(self) -> Mapping[str, str]:
        """Those that exist, with their status."""
        found = self._api.status().applications
        return {name: str(found[name].status) for name in (self.ingress, self.poller) if name in found}

    @contextmanager
    def held(self, is_ours: Callable[[], bool], drain: Callable[[Self], None]) -> Iterator[Self]:
        """Check that none of them exists, and delete those that do after the block.

        Args:
            is_ours: Whether the claim to their name still holds. If `ship serve --stop` has ended it, what
                has the name now is another endpoint.
            drain: Lets requests under way finish.

        Raises:
            ServeError: One exists already.
        """
        self.check_absent()
        try:
            yield self
        finally:
            if is_ours():
                if self.find():
                    drain(self)
                self.delete()

    def check_absent(self) -> None:
        """Check that none of them exists.

        Raises:
            ServeError: One does, which another process deployed.
        """
        if found := self.find():
            listed = ", ".join(f"{name} ({status})" for name, status in found.items())
            raise ServeError(
                f"this Ray cluster runs Ray Serve applications of the same names already: {listed}; end them "
                f"with `ship serve --stop --name {self.endpoint}`, or choose another --name"
            )

    def run(self, ingress: Any, poller: Any) -> None:
        """Deploy both and wait until they run.

        Raises:
            ServeError: A replica cannot be started, or another application answers at the same address.
        """
        targets = [
            serve.RunTarget(ingress, name=self.ingress, route_prefix="/"),
            serve.RunTarget(poller, name=self.poller, route_prefix=None),
        ]
        try:
            self._api.run_many(targets)
        except RayServeException as error:
            # Ray Serve has one proxy for the whole cluster, and that proxy one application at each prefix.
            others = ", ".join(sorted(set(self._api.status().applications) - {self.ingress, self.poller}))
            # Raised on another machine, its text is a traceback, and this the last line of it.
            said = str(error).strip().rpartition("\n")[2]
            raise ServeError(
                f"endpoint {self.endpoint!r} cannot be deployed beside what this Ray cluster serves "
                f"({others}): {said} A cluster has one endpoint, on one port: end the other one with "
                "`ship serve --stop --name NAME`, or set RAY_ADDRESS to another cluster"
            ) from error
        except (RuntimeError, TimeoutError) as error:
            found = self._api.status().applications
            causes = [found[name].message for name in (self.ingress, self.poller) if name in found]
            raise ServeError(
                f"the endpoint could not be deployed: {'; '.join(filter(None, causes)) or error}"
            ) from error

    def delete(self) -> None:
        """Delete those that exist."""
        for name in self.find():
            # It may go at the same time by another's hand.
            with suppress(RayError, RayServeException):
                self._api.delete(name)
