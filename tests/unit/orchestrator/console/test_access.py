"""Sign-in, scopes, sessions, and requests that another site forges."""

import asyncio
import re

import pytest

from orchestrator.console.access import Access, hosts_of
from orchestrator.console.sessions import LIFETIME_S, SignInLimit
from orchestrator.console.sign_in import safe_next
from orchestrator.store.documents.token_changes import change_tokens, revoke_token, rotate_token
from tests.unit.orchestrator.console.factory import Clock, Console, ask_app, make_console


@pytest.fixture
def console() -> Console:
    return make_console()


def test_a_page_is_shown_after_sign_in_and_goes_on_where_it_was_asked_for(console: Console) -> None:
    browser, made = console.browser(), console.token()
    asked = browser.get("/fleet?tag=site%3Dulm")
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    assert form.status_code == 200
    assert 'value="/fleet?tag=site%3Dulm"' in form.text
    signed = browser.post("/sign-in", data={"token": made.text, "next": "/fleet?tag=site%3Dulm"})
    assert (signed.status_code, signed.headers["location"]) == (303, "/fleet?tag=site%3Dulm")
    assert browser.get("/fleet").status_code == 200


def test_the_cookie_holds_no_token_and_scripts_cannot_read_it(console: Console) -> None:
    browser, made = console.browser(), console.token()
    set_cookie = browser.post("/sign-in", data={"token": made.text}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict"} <= set(set_cookie.split("; "))
    assert "Secure" not in set_cookie
    for secret in (made.text, made.text.split("_")[2], made.token.secrets[0].sha256):
        assert secret not in set_cookie
    secure = console.browser()
    secure.base_url = "https://testserver"
    secure.headers["Origin"] = "https://testserver"
    assert "Secure" in secure.post("/sign-in", data={"token": made.text}).headers["set-cookie"].split("; ")


@pytest.mark.parametrize("text", ["", "ship_x", "ship_0123456789ab_" + "0" * 64, "\x00", "ship_" * 30])
def test_what_is_no_token_signs_nobody_in(console: Console, text: str) -> None:
    console.token()
    reply = console.browser().post("/sign-in", data={"token": text})
    assert reply.status_code == 401
    assert "set-cookie" not in reply.headers


def test_a_secret_that_is_wrong_by_one_digit_signs_nobody_in(console: Console) -> None:
    made = console.token()
    wrong = made.text[:-1] + ("0" if made.text[-1] != "0" else "1")
    assert console.browser().post("/sign-in", data={"token": wrong}).status_code == 401


def test_a_token_without_console_is_told_so(console: Console) -> None:
    reply = console.browser().post("/sign-in", data={"token": console.token(console=None).text})
    assert reply.status_code == 403
    assert "--console look" in reply.text


def test_an_admin_token_of_an_endpoint_may_do_everything(console: Console) -> None:
    made = console.token("ops", console=None, predict=(), admin=True)
    found = console.browser().get("/fleet.json", headers={"Authorization": f"Bearer {made.text}"})
    assert found.status_code == 200


@pytest.mark.parametrize("change", ["revoke", "rotate"])
def test_a_session_ends_within_seconds_of_its_token(console: Console, change: str) -> None:
    browser = console.sign_in()
    assert browser.get("/fleet").status_code == 200
    if change == "revoke":
        change_tokens(console.services.store, lambda tokens: revoke_token(tokens, "maria"))
    else:
        now_s = console.clock.now_s
        change_tokens(console.services.store, lambda tokens: rotate_token(tokens, "maria", now_s=now_s))
    console.clock.now_s += 3.0
    assert browser.get("/fleet").status_code == 303
    assert browser.get("/fleet.json").status_code == 401


def test_a_session_ends_when_its_token_expires_and_when_it_is_old(console: Console) -> None:
    browser, made = console.browser(), console.token(lifetime_s=100.0)
    browser.post("/sign-in", data={"token": made.text})
    assert browser.get("/fleet").status_code == 200
    console.clock.now_s += 100.0
    assert browser.get("/fleet").status_code == 303
    old = console.sign_in("eva")
    console.clock.now_s += LIFETIME_S
    assert old.get("/fleet").status_code == 303


def test_sign_out_ends_the_session_wherever_its_cookie_is(console: Console) -> None:
    browser = console.sign_in()
    cookie = browser.cookies["ship_console"]
    assert browser.post("/sign-out").status_code == 303
    copied = console.browser()
    copied.cookies.set("ship_console", cookie)
    assert copied.get("/fleet").status_code == 303


def test_tries_to_sign_in_are_limited_and_allowed_again_later(console: Console) -> None:
    browser, made = console.browser(), console.token()
    for _ in range(10):
        assert browser.post("/sign-in", data={"token": "wrong"}).status_code == 401
    refused = browser.post("/sign-in", data={"token": made.text})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    console.clock.now_s += 61.0
    assert browser.post("/sign-in", data={"token": made.text}).status_code == 303


def test_the_limit_counts_all_addresses_together_too() -> None:
    clock = Clock()
    limit = SignInLimit(each=10, all_=20, clock=clock)
    for number in range(20):
        assert limit.wait_s("10.0.0.1") == 0.0
        limit.add_failure(f"10.0.1.{number}")
    assert limit.wait_s("10.0.0.1") == 60.0
    clock.now_s += 60.0
    assert limit.wait_s("10.0.0.1") == 0.0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://testserver:81"}, 403),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}, 303),
    ],
)
def test_changes_that_another_site_asks_for_are_refused(
    console: Console, headers: dict[str, str], status: int
) -> None:
    browser = console.sign_in()
    assert browser.post("/sign-out", headers=headers).status_code == status
    # Signing a person in to an account of the attacker's is one, too.
    made = console.token("eva")
    console.clock.now_s += 3.0
    assert browser.post("/sign-in", data={"token": made.text}, headers=headers).status_code == status


def test_a_change_without_origin_is_refused(console: Console) -> None:
    browser = console.sign_in()
    del browser.headers["Origin"]
    assert browser.post("/sign-out").status_code == 403


def test_a_change_needs_the_csrf_value_of_its_own_session(console: Console) -> None:
    browser, other = console.sign_in("maria"), console.sign_in("eva")
    right = browser.headers.pop("X-CSRF-Token")
    for sent in ({}, {"csrf": ""}, {"csrf": "wrong"}, {"csrf": other.headers["X-CSRF-Token"]}):
        assert browser.post("/sign-out", data=sent).status_code == 403
    assert browser.get("/fleet").status_code == 200
    page = browser.get("/fleet").text
    assert re.findall(r'name="csrf" value="([^"]*)"', page) == [right]
    assert browser.post("/sign-out", data={"csrf": right}).status_code == 303


def test_a_program_sends_its_token_and_no_cookie(console: Console) -> None:
    made = console.token()
    program = console.browser()
    del program.headers["Origin"]
    sent = {"Authorization": f"Bearer {made.text}"}
    assert program.get("/fleet.json", headers=sent).json()["tasks"] == []
    assert program.get("/fleet.json").status_code == 401
    wrong = {"Authorization": "Bearer ship_0123456789ab_" + "0" * 64}
    assert program.get("/fleet.json", headers=wrong).status_code == 401


def test_another_name_of_loopback_is_refused() -> None:
    """A page whose name is led to 127.0.0.1 would be of the console's own origin."""
    local = make_console(access=lambda clock: Access(auth=False, hosts=hosts_of("127.0.0.1")))
    browser = local.browser()
    for host, status in (("127.0.0.1:8080", 200), ("localhost:8080", 200), ("[::1]:8080", 200)):
        assert browser.get("/fleet", headers={"Host": host}).status_code == status
    for host in ("evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        assert browser.get("/fleet", headers={"Host": host}).status_code == 400
        assert browser.post("/sign-in", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("hosts", [None, hosts_of("127.0.0.1")])
@pytest.mark.parametrize("host", ["[", "[::1", "::1]", "[x]"])
def test_a_host_that_is_none_is_refused_in_the_usual_form(hosts: frozenset[str] | None, host: str) -> None:
    browser = make_console(access=lambda clock: Access(hosts=hosts)).browser()
    for path in ("/sign-in", "/fleet"):
        refused = browser.get(path, headers={"Host": host})
        assert (refused.status_code, "not reached by that name" in refused.text) == (400, True)
        assert "content-security-policy" in refused.headers
    found = browser.get("/fleet.json", headers={"Host": host})
    assert (found.status_code, found.json()["error"]["status"]) == (400, 400)


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://]", "["])
def test_an_origin_that_is_none_is_another_sites(console: Console, origin: str) -> None:
    refused = console.sign_in().post("/sign-out", headers={"Origin": origin})
    assert (refused.status_code, "another site" in refused.text) == (403, True)
    assert "content-security-policy" in refused.headers
    assert console.browser().post("/sign-in", headers={"Origin": origin}).status_code == 403


def test_a_query_that_is_no_text_is_one_like_others(console: Console) -> None:
    asked = asyncio.run(ask_app(console.app, "GET", "/fleet", query=b"q=\xff"))
    assert (asked.status, asked.headers["location"].startswith("/sign-in?next=%2Ffleet")) == (303, True)
    token = {"Authorization": f"Bearer {console.token().text}"}
    assert asyncio.run(ask_app(console.app, "GET", "/fleet", token, query=b"q=\xff")).status == 200


def test_hosts_of_a_console_beyond_loopback() -> None:
    assert hosts_of("0.0.0.0") is None
    assert hosts_of("127.0.0.1", ("console.plant.example",)) is not None
    assert "console.plant.example" in (hosts_of("127.0.0.1", ("console.plant.example",)) or ())


@pytest.mark.parametrize(
    "url", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", "/a\nb", "javascript:1"]
)
def test_sign_in_leads_to_this_console_alone(url: str) -> None:
    assert safe_next(url) == "/fleet"
    assert safe_next("/audit?task=a") == "/audit?task=a"
