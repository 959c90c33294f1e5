"""Bodies: nothing of a stranger's is read, none is decoded as its sender likes, and each has its bounds."""

import asyncio
from collections.abc import Iterable
from itertools import chain, repeat

import httpx
import pytest
from starlette.types import Message

from orchestrator.console.app import make_app
from orchestrator.console.bodies import LIMITS, SIGN_IN_LIMITS
from orchestrator.errors import StoreError
from orchestrator.serve.options import Limits
from tests.unit.orchestrator.console.factory import Console, Reply, ask_app, make_console

FORM, FIELDS = "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"
PATHS = ("/try", "/tasks/bolts/promote", "/review/bolts/label", "/runs/r/cancel", "/sign-out", "/nothing")
INVENTED = {"Authorization": f"Bearer ship_{'0' * 12}_{'0' * 64}"}
START = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
LIMIT_S = 30.0


class Body:
    """A body in parts; knows how many were taken.

    Args:
        parts: Its parts.
        ends: Whether it ends after the last one, or nothing comes any more.
    """

    def __init__(self, parts: Iterable[bytes] = (), *, ends: bool = False) -> None:
        self.parts, self.ends, self.num_taken = iter(parts), ends, 0
        self.is_idle = asyncio.Event()

    async def __call__(self) -> Message:
        # Another task may run between two parts, as on a network.
        await asyncio.sleep(0)
        part = next(self.parts, None)
        if part is None and not self.ends:
            self.is_idle.set()
            await asyncio.Event().wait()
        self.num_taken += 1
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}


@pytest.fixture
def console() -> Console:
    return make_console()


def ask(console: Console, path: str, headers: dict[str, str], body: Body, method: str = "POST") -> Reply:
    async def in_time() -> Reply:
        async with asyncio.timeout(LIMIT_S):
            return await ask_app(console.app, method, path, headers, receive=body)

    return asyncio.run(in_time())


def token(console: Console, name: str = "maria") -> dict[str, str]:
    made = {"Authorization": f"Bearer {console.token(name).text}"}
    console.clock.now_s += 3.0
    return made


def bounded(console: Console, limits: Limits = LIMITS, sign_in_limits: Limits = SIGN_IN_LIMITS) -> Console:
    """The console with other limits."""
    console.app = make_app(console.services, console.access, limits=limits, sign_in_limits=sign_in_limits)
    return console


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", [FORM, FIELDS])
def test_no_byte_of_a_stranger_is_taken(console: Console, path: str, kind: str) -> None:
    body = Body(repeat(bytes(1 << 20), 60))
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        refused = ask(console, path, {"Content-Type": kind}, body, method)
        assert (refused.status, "Sign in" in refused.text) == (401, True)
    assert ask(console, path, {"Content-Type": kind, **INVENTED}, body).status == 401
    assert ask(console, path, {"Content-Type": kind, "Cookie": "ship_console=x"}, body).status == 401
    assert body.num_taken == 0


def test_a_stranger_is_refused_in_the_form_that_it_reads(console: Console) -> None:
    sent = {"Content-Type": FORM}
    page, part = ask(console, "/try", sent, Body()), ask(console, "/try", {**sent, "HX-Request": "1"}, Body())
    assert page.text.startswith("<!DOCTYPE html>")
    assert (part.status, part.text, part.headers["hx-redirect"]) == (401, "", "/sign-in")
    assert '"status":401' in ask(console, "/try.json", sent, Body()).text
    for reply in (page, part):
        assert "content-security-policy" in reply.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "["}, 400),
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/try"])
def test_no_byte_of_another_sites_request_is_taken(
    console: Console, path: str, headers: dict[str, str], status: int
) -> None:
    body = Body(repeat(b"x"))
    refused = ask(console, path, {**token(console), "Content-Type": FIELDS, **headers}, body)
    assert (refused.status, body.num_taken) == (status, 0)


def test_no_byte_is_taken_while_the_tokens_cannot_be_read(console: Console) -> None:
    def fail(when: str) -> None:
        raise StoreError("the store is away")

    console.world.objects.hook = fail
    body = Body(repeat(b"x"))
    refused = ask(console, "/try.json", {"Content-Type": FORM, **INVENTED}, body)
    assert (refused.status, "the store is away" in refused.text, body.num_taken) == (503, True, 0)


@pytest.mark.parametrize("path", ["/sign-in", "/try", "/sign-out"])
@pytest.mark.parametrize(
    "parameter",
    [
        "charset=punycode",
        'CHARSET="punycode"',
        "charset = idna",
        "charset=utf-8; charset=utf-7",
        'charset=";utf-8"',
        "charset=utf-16",
        "charset=",
        "charset",
        "charset=latin-1",
    ],
)
def test_a_client_chooses_no_codec(console: Console, path: str, parameter: str) -> None:
    body, known = Body(repeat(b"x")), token(console)
    for kind in (FORM, FIELDS):
        refused = ask(console, path, {**known, "Content-Type": f"{kind}; {parameter}"}, body)
        assert (refused.status, "expected the charset utf-8" in refused.text) == (415, True)
    assert body.num_taken == 0


@pytest.mark.parametrize("parameter", ["", "; charset=utf-8", '; charset="UTF-8"', "; charset=utf8"])
def test_a_form_is_utf_8(console: Console, parameter: str) -> None:
    made = console.token()
    form = f'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\n{made.text}\r\n--b--\r\n'
    kinds = {FORM: form.encode(), FIELDS: f"token={made.text}".encode()}
    for kind, content in kinds.items():
        signed = ask(console, "/sign-in", {"Content-Type": kind + parameter}, Body([content], ends=True))
        assert signed.status == 303


def test_a_charset_of_a_part_decodes_nothing(console: Console) -> None:
    """Else the gate would have to look into bodies."""
    made = console.token()
    part = 'Content-Disposition: form-data; name="token"\r\nContent-Type: text/plain; charset=utf-16'
    for charset in ("", 'Content-Disposition: form-data; name="_charset_"\r\n\r\nutf-16\r\n--b\r\n'):
        form = f"--b\r\n{charset}{part}\r\n\r\n{made.text}\r\n--b--\r\n".encode()
        assert ask(console, "/sign-in", {"Content-Type": FORM}, Body([form], ends=True)).status == 303


def test_a_body_of_the_sign_in_is_small(console: Console) -> None:
    most = SIGN_IN_LIMITS.max_body_bytes
    announced, arriving = Body([b"token="]), Body([b"token=", *repeat(b"x" * 1000, 60)])
    sent = {"Content-Type": FIELDS, "Content-Length": str(most + 1)}
    assert (ask(console, "/sign-in", sent, announced).status, announced.num_taken) == (413, 0)
    assert ask(console, "/sign-in", {"Content-Type": FIELDS}, arriving).status == 413
    assert arriving.num_taken <= most // 1000 + 2
    # A long address to go on with has room.
    long = httpx.QueryParams({"token": console.token().text, "next": "/fleet?q=" + "%" * 1990})
    signed = ask(console, "/sign-in", {"Content-Type": FIELDS}, Body([str(long).encode()], ends=True))
    assert signed.status == 303


def test_a_body_that_is_too_large_is_refused_as_soon_as_it_is(console: Console) -> None:
    bounded(console, Limits(max_body_bytes=10_000))
    sent = {**token(console), "Content-Type": FORM}
    arriving, announced = Body([START, *repeat(bytes(1000), 60)]), Body([START])
    assert (ask(console, "/try.json", sent, arriving).status, arriving.num_taken) == (413, 11)
    large = {**sent, "Content-Length": "10001"}
    assert (ask(console, "/try.json", large, announced).status, announced.num_taken) == (413, 0)


@pytest.mark.parametrize("path", ["/sign-in", "/try.json"])
def test_a_body_that_stops_arriving_is_refused(console: Console, path: str) -> None:
    brief = Limits(body_idle_s=0.05)
    bounded(console, brief, brief)
    refused = ask(console, path, {**token(console), "Content-Type": FORM}, Body([START]))
    assert (refused.status, "more of it within 0.05 s" in refused.text) == (408, True)
    assert refused.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/sign-in", "/try.json"])
def test_a_body_that_never_ends_is_refused(console: Console, path: str) -> None:
    brief = Limits(body_idle_s=1000.0, timeout_s=0.05, max_body_bytes=1 << 40)
    bounded(console, brief, brief)
    refused = ask(console, path, {**token(console), "Content-Type": FORM}, Body(chain([START], repeat(b""))))
    assert (refused.status, "all of it within 0.05 s" in refused.text) == (408, True)


def test_people_have_their_share_of_bodies_under_way_and_give_it_back(console: Console) -> None:
    bounded(console, Limits(max_inside=2), Limits(max_inside=2))
    sent, others = {**token(console), "Content-Type": FORM}, {**token(console, "eva"), "Content-Type": FORM}
    wrong = b"token=x"

    async def hold() -> tuple[Reply, Reply, Reply, Reply]:
        held = Body([START])
        holding = asyncio.create_task(ask_app(console.app, "POST", "/try.json", sent, receive=held))
        async with asyncio.timeout(LIMIT_S):
            await held.is_idle.wait()
        untouched = Body([START])
        second = await ask_app(console.app, "POST", "/try.json", sent, receive=untouched)
        assert untouched.num_taken == 0
        other = await ask_app(console.app, "POST", "/sign-out", others)
        body = Body([wrong], ends=True)
        stranger = await ask_app(console.app, "POST", "/sign-in", {"Content-Type": FIELDS}, receive=body)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        return second, other, stranger, await ask_app(console.app, "POST", "/sign-out", sent)

    second, other, stranger, again = asyncio.run(hold())
    assert (second.status, second.headers["retry-after"]) == (429, "1")
    assert '"status":429' in second.text
    assert (other.status, stranger.status, again.status) == (303, 401, 303)


def test_strangers_have_few_forms_under_way(console: Console) -> None:
    bounded(console, sign_in_limits=Limits(max_inside=2))
    sent = {"Content-Type": FIELDS}

    async def hold() -> tuple[Reply, Reply]:
        held = Body([b"token="])
        holding = asyncio.create_task(ask_app(console.app, "POST", "/sign-in", sent, receive=held))
        async with asyncio.timeout(LIMIT_S):
            await held.is_idle.wait()
        refused = await ask_app(console.app, "POST", "/sign-in", sent, receive=Body([b"token="]))
        person = await ask_app(console.app, "POST", "/sign-out", token(console))
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        return refused, person

    refused, person = asyncio.run(hold())
    assert (refused.status, person.status) == (429, 303)
