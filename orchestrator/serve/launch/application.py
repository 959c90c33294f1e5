"""The Ray Serve application of one endpoint on a cluster that others may use too.

Its name follows the store, so that endpoints of different stores never overwrite each other. One that exists
already is refused, and what is deleted is what this endpoint deployed.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, Self

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from orchestrator.errors import ServeError

__all__ = ["EndpointApplication", "ServeApi", "name_endpoint"]

_OWN_ERROR = re.compile(r"(ship|orchestrator)\.errors\.\w+: ")
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


class EndpointApplication:
    """The application of the endpoint of that name.

    Args:
        name: Name of the endpoint, and of its application.
        api: Ray Serve.
    """

    def __init__(self, name: str, api: ServeApi = serve) -> None:
        self.name = name
        self._api = api

    def find(self) -> str | None:
        """Its status; None if it does not exist."""
        found = self._api.status().applications
        return str(found[self.name].status) if self.name in found else None

    def check_absent(self) -> None:
        """Check that it does not exist.

        Raises:
            ServeError: It does, and another process deployed it.
        """
        if found := self.find():
            raise ServeError(
                f"this Ray cluster runs a Ray Serve application of the same name already: {self.name} "
                f"({found}); end it with `ship serve --stop --name {self.name}`, or choose another --name"
            )

    def run(self, application: Any) -> None:
        """Deploy it and wait until it runs.

        Raises:
            ServeError: A replica cannot be started, or another application answers at the same address.
        """
        try:
            self._api.run_many([serve.RunTarget(application, name=self.name, route_prefix="/")])
        except RayServeException as error:
            # Ray Serve has one proxy for the whole cluster, and that proxy one application at each prefix.
            others = ", ".join(sorted(set(self._api.status().applications) - {self.name}))
            raise ServeError(
                f"endpoint {self.name!r} cannot be deployed beside what this Ray cluster serves "
                f"({others}): {_last_line(str(error))} A cluster has one endpoint, on one port: end the "
                "other one with `ship serve --stop --name NAME`, or set RAY_ADDRESS to another cluster"
            ) from error
        except (RuntimeError, TimeoutError) as error:
            found = self._api.status().applications.get(self.name)
            raise ServeError(f"the endpoint could not be deployed: {_cause(found) or error}") from error

    def end(self, drain: Callable[[Self], None]) -> None:
        """Let requests under way finish by ``drain``, and delete it, if it exists."""
        if self.find():
            drain(self)
        self.delete()

    def delete(self) -> None:
        """Delete it, if it exists."""
        if self.find():
            # It may go at the same time by another's hand.
            with suppress(RayError, RayServeException):
                self._api.delete(self.name)


def _cause(application: Any) -> str:
    """What a replica said in words of our own, of all the tracebacks; else what Ray Serve says."""
    if application is None:
        return ""
    messages = [application.message, *(found.message for found in application.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines()]
    own = [line.partition(": ")[2] for line in lines if _OWN_ERROR.match(line)]
    return own[-1] if own else str(application.message)


def _last_line(text: str) -> str:
    """What an error says whose text, raised on another machine, is a traceback."""
    return text.strip().rpartition("\n")[2]
