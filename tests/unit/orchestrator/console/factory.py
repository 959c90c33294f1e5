"""A console over a store and an MLflow in memory, with people who are signed in to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive

from orchestrator.client import Client, EndpointError, ServedTask
from orchestrator.console.access import Access
from orchestrator.console.app import make_app
from orchestrator.console.services import Services
from orchestrator.settings import Settings
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.token_changes import NewToken, change_tokens, create_token
from orchestrator.store.documents.tokens import ConsoleScope, Scope
from tests.unit.orchestrator.registry.factory import NOW_S, World

__all__ = ["ORIGIN", "Clock", "Console", "FakeEndpoint", "Reply", "ask_app", "make_console"]

ORIGIN = {"Origin": "http://testserver"}


@dataclass
class FakeEndpoint:
    """An endpoint as its client has it.

    Attributes:
        text: Its metrics.
        served: Its tasks.
        ready: What ``/readyz`` says.
        is_away: Whether it does not answer.
    """

    text: str = ""
    served: dict[str, ServedTask] = field(default_factory=dict)
    ready: dict[str, Any] = field(default_factory=lambda: {"ready": True, "detail": "1 tasks are served"})
    is_away: bool = False
    url: str = "http://endpoint"

    def readiness(self) -> dict[str, Any]:
        if self.is_away:
            raise EndpointError("http://endpoint does not answer")
        return self.ready

    def metrics(self) -> str:
        return self.text

    def tasks(self) -> list[ServedTask]:
        return list(self.served.values())


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Console:
    """A console, and what is behind it.

    Attributes:
        world: Store and registry.
        services: What its pages read.
        clock: Its clock, of which kept values and sessions age, too.
        access: Its access control.
    """

    world: World
    services: Services
    clock: Clock
    access: Access
    app: Any = field(init=False)

    def __post_init__(self) -> None:
        self.app = make_app(self.services, self.access)

    def token(
        self,
        name: str = "maria",
        console: ConsoleScope | None = "look",
        predict: tuple[str, ...] = ("*",),
        *,
        lifetime_s: float | None = None,
        admin: bool = False,
    ) -> NewToken:
        """Make a token."""
        scope = Scope(predict=predict, admin=admin, console=console, metrics=not predict and not admin)
        return change_tokens(
            self.services.store,
            lambda tokens: create_token(tokens, name, scope, now_s=self.clock.now_s, lifetime_s=lifetime_s),
        )

    def browser(self) -> TestClient:
        """A browser that has not signed in; it sends the header Origin, as browsers do with changes."""
        return TestClient(self.app, headers=ORIGIN, follow_redirects=False)

    def sign_in(
        self, name: str = "maria", console: ConsoleScope = "look", predict: tuple[str, ...] = ("*",)
    ) -> TestClient:
        """A browser of a person with a token of their own; it sends the CSRF value, as htmx does."""
        browser = self.browser()
        made = self.token(name, console, predict)
        self.clock.now_s += 3.0
        reply = browser.post("/sign-in", data={"token": made.text})
        assert reply.status_code == 303, reply.text
        session = self.access.sessions.find(browser.cookies["ship_console"])
        assert session is not None
        browser.headers["X-CSRF-Token"] = session.csrf
        return browser


@dataclass(frozen=True)
class Reply:
    """A reply.

    Attributes:
        status: HTTP status.
        headers: Its headers.
        text: Its body.
    """

    status: int
    headers: Headers
    text: str


async def ask_app(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    query: bytes = b"",
    receive: Receive | None = None,
) -> Reply:
    """Ask an application what no client library would, such as with half a body.

    Args:
        app: The application.
        method: Method.
        path: Path.
        headers: Headers beside Host and Origin.
        query: Query as it is on the wire.
        receive: Gives the parts of the body; by default there is none.
    """
    sent = Headers({"Host": "testserver", **ORIGIN, **(headers or {})})
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "scheme": "http",
        "headers": sent.raw,
        "client": ("192.0.2.1", 1),
        "server": ("testserver", 80),
    }
    said: list[Message] = []

    async def receive_nothing() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    await app(scope, receive or receive_nothing, send)
    body = b"".join(message.get("body", b"") for message in said)
    return Reply(said[0]["status"], Headers(raw=said[0]["headers"]), body.decode())


def make_console(
    home: Path = Path("/nowhere"),
    *,
    world: World | None = None,
    endpoint: Client | FakeEndpoint | None = None,
    access: Callable[[Clock], Access] | None = None,
    **more: Any,
) -> Console:
    """A console over a world.

    Args:
        home: Folder of runs.
        world: Store and registry; by default empty ones.
        endpoint: Client of an endpoint, or something like it.
        access: Makes the access control; by default people sign in.
        **more: Further arguments of the services.
    """
    from orchestrator.console.sessions import Sessions, SignInLimit

    world, clock = world or World(), Clock()
    services = Services(
        settings=Settings.from_env({}, home=str(home)),
        store=world.store,
        registry=world.fresh_registry(),
        audit=AuditLog(world.store, clock),
        endpoint=endpoint,  # type: ignore[arg-type]
        clock=clock,
        monotonic=clock,
        **more,
    )
    made = access(clock) if access else Access(sessions=Sessions(clock), limit=SignInLimit(clock=clock))
    return Console(world=world, services=services, clock=clock, access=made)
