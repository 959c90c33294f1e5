"""Who may see and decide what in the console: tokens of the store, sessions, scopes, and forged requests.

A person signs in with a token that ``ship token create NAME --console look|decide|admin`` made. Each request
looks the token up again, so that its revocation, its expiry and its scope hold within seconds. A program may
send the token itself, as ``Authorization: Bearer``.
"""

import hmac
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import SplitResult, urlsplit

from fastapi import HTTPException, Request

from orchestrator.console.sessions import COOKIE, Session, Sessions, SignInLimit
from orchestrator.errors import ManifestError
from orchestrator.serve.launch.address import is_loopback
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.tokens import Scope as TokenScope
from orchestrator.store.documents.tokens import Secret, Token, parse_token

if TYPE_CHECKING:
    from orchestrator.console.services import Services

__all__ = [
    "CSRF_FIELD",
    "CSRF_HEADER",
    "SAFE_METHODS",
    "Access",
    "Person",
    "Scope",
    "SignInNeeded",
    "check_csrf",
    "check_request",
    "find_token",
    "hosts_of",
    "identify",
    "make_person",
    "person_of",
    "requires",
    "services_of",
]

CSRF_FIELD, CSRF_HEADER = "csrf", "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Scope(IntEnum):
    """What a token may do in the console; each includes the ones before."""

    LOOK = 1
    DECIDE = 2
    ADMIN = 3


@dataclass(frozen=True, kw_only=True)
class Access:
    """Access control of one console.

    Attributes:
        auth: Whether people sign in.
        hosts: Names that the console is reached by; None for any.
        sessions: People who have signed in.
        limit: Limit on tries.
    """

    auth: bool = True
    hosts: frozenset[str] | None = None
    sessions: Sessions = field(default_factory=Sessions)
    limit: SignInLimit = field(default_factory=SignInLimit)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Sender of a request.

    Attributes:
        name: Name of the token, as it is in the audit log; None where nobody signs in: the process's user.
        scope: What may be done.
        tasks: Scope of the token, which says the tasks.
        csrf: What forms carry; empty where the request carries the token itself.
    """

    name: str | None
    scope: Scope
    tasks: TokenScope
    csrf: str = field(default="", repr=False)

    def sees(self, task: str) -> bool:
        """Whether a task may be seen, and decided on."""
        return self.tasks.may_predict(task)

    @property
    def sees_all(self) -> bool:
        """Whether all tasks may be seen, and what concerns no task."""
        return self.tasks.admin or "*" in self.tasks.predict

    def check_sees(self, task: str) -> None:
        """Return if a task may be seen.

        Raises:
            HTTPException: 404: whether there is such a task is not told, either.
        """
        if not self.sees(task):
            raise HTTPException(404, f"There is no task {task[:80]!r} that this token may see.")

    def author(self, reason: str) -> Author:
        """Author of a change, for the functions that make it.

        Args:
            reason: Reason that was given in the form.

        Raises:
            ManifestError: There is no reason.
        """
        if not reason.strip():
            raise ManifestError("expected a reason; it is kept with the change and in the audit log")
        if self.name is None:
            return Author.of_process(reason.strip())
        # The operating system's user is the console's, not the one who decides.
        return Author(by=self.name, host=socket.gethostname(), reason=reason.strip())


class SignInNeeded(Exception):  # noqa: N818 - reads as a fact
    """A request without a session or a token that counts."""


def services_of(request: Request) -> "Services":
    """The services of the console that got a request."""
    services: Services = request.app.state.services
    return services


def person_of(request: Request) -> Person:
    """Sender of a request that ``identify`` has let in."""
    person: Person = request.state.person
    return person


def requires(scope: Scope) -> Callable[[Request], Person]:
    """A dependency that gives the sender, and refuses one of less scope: ``Depends(requires(...))``."""

    def check(request: Request) -> Person:
        person = person_of(request)
        if person.scope < scope:
            raise HTTPException(
                403,
                f"This takes a token with --console {scope.name.lower()} or more; this one may "
                f"{person.scope.name.lower()}.",
            )
        return person

    return check


def check_request(request: Request) -> None:
    """Refuse a request to another host, and a change that another site asks for.

    Raises:
        HTTPException: 400 or 403.
    """
    access: Access = request.app.state.access
    host = request.headers.get("host", "")
    named = _split(f"//{host}")
    if named is None or (access.hosts is not None and (named.hostname or "") not in access.hosts):
        raise HTTPException(400, "This console is not reached by that name; see `ship console --allow-host`.")
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site not in (None, "same-origin", "none"):
        raise HTTPException(403, "A page of another site asked for this.")
    # A browser names the origin of each change; a proxy in front may speak TLS where this server does not.
    if origin is not None and ((asking := _split(origin)) is None or asking.netloc != host):
        raise HTTPException(403, "A page of another site asked for this.")
    if origin is None and site is None and _bearer(request) is None:
        raise HTTPException(403, "Expected a header Origin or Sec-Fetch-Site, as browsers send it.")


def identify(request: Request) -> None:
    """Find the sender of a request and note it for ``person_of``.

    Raises:
        SignInNeeded: There is none.
        HTTPException: 403, a token without access to the console.
        StoreError: The tokens cannot be read.
    """
    access: Access = request.app.state.access
    if not access.auth:
        everything = TokenScope(admin=True)
        # One for the process: there are no sessions to tell apart.
        csrf: str = request.app.state.csrf
        request.state.person = Person(name=None, scope=Scope.ADMIN, tasks=everything, csrf=csrf)
    elif (sent := _bearer(request)) is not None:
        name, token, _ = find_token(services_of(request), sent) or _need_sign_in()
        request.state.person = make_person(name, token)
    else:
        session = access.sessions.find(request.cookies.get(COOKIE, "")) or _need_sign_in()
        name, token = _token_of(services_of(request), session) or _need_sign_in()
        request.state.person = make_person(name, token, session.csrf)


async def check_csrf(request: Request) -> None:
    """Refuse a change whose form, or header, does not have what this session's pages have.

    Raises:
        HTTPException: 403.
    """
    person = person_of(request)
    if request.method in SAFE_METHODS or (not person.csrf and _bearer(request) is not None):
        return
    header = request.headers.get(CSRF_HEADER)
    sent = (await request.form()).get(CSRF_FIELD) if header is None else header
    if not (isinstance(sent, str) and hmac.compare_digest(sent.encode(), person.csrf.encode())):
        raise HTTPException(403, "The form is of another session, or too old: open the page again.")


def find_token(services: "Services", text: str) -> tuple[str, Token, Secret] | None:
    """Name, token and secret of a token's text, verified as an endpoint does; None if it does not count."""
    parsed = parse_token(text.strip())
    found = None if parsed is None else services.tokens().find(parsed[0])
    if parsed is None or found is None:
        return None
    secret = found[2]
    return found if secret.is_made_of(parsed[1]) and secret.is_live(services.clock()) else None


def make_person(name: str, token: Token, csrf: str = "") -> Person:
    """The person that a token stands for.

    Raises:
        HTTPException: 403, the token has no access to the console.
    """
    granted = "admin" if token.scope.admin else token.scope.console
    if granted is None:
        raise HTTPException(
            403, f"Token {name!r} has no access to the console; `ship token create NAME --console look` has."
        )
    return Person(name=name, scope=Scope[granted.upper()], tasks=token.scope, csrf=csrf)


def hosts_of(host: str, allowed: tuple[str, ...] = ()) -> frozenset[str] | None:
    """Names by which a console that listens there is reached; None for any.

    On loopback others are refused: a page whose name is led to 127.0.0.1 would be of the same origin.
    """
    return frozenset({*_LOOPBACK, host, *allowed}) if is_loopback(host) or allowed else None


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that a client sent; None for what is none, such as one of half a bracket."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _need_sign_in() -> NoReturn:
    raise SignInNeeded


def _token_of(services: "Services", session: Session) -> tuple[str, Token] | None:
    """The token of a session as it is now; None if its secret is gone, was changed or has expired."""
    found = services.tokens().find(session.token_id)
    if found is None or found[2].sha256 != session.sha256 or not found[2].is_live(services.clock()):
        return None
    return found[0], found[1]


def _bearer(request: Request) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None
