"""What holds of every page: headers, escaping, JSON beside HTML, nothing from elsewhere, visible tasks."""

import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from orchestrator.client import ServedTask
from orchestrator.console.assets import asset_url, find_assets
from orchestrator.console.rendering import plain, with_query
from orchestrator.console.security import HEADERS
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from ship.redaction import Url
from tests.unit.orchestrator.console.factory import Console, FakeEndpoint, make_console
from tests.unit.orchestrator.registry.factory import make_bolts

HOSTILE = '"><script src=//evil.example/x.js></script><img src=x onerror=alert(1)>{{ 7 * 7 }}\u202e\x00'
PAGES = ("/fleet", "/audit", "/audit/verify", "/endpoint", "/runs", "/try")
FOLDER = Path(str(files("orchestrator.console")))


class Elements(HTMLParser):
    """Elements of a page, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def console() -> Console:
    world = make_bolts()
    world.mlflow.models["ship.bolts"].tags.update({"plant": HOSTILE, HOSTILE: "1", "line": "2"})
    author = Author(by=HOSTILE, host=HOSTILE, reason=HOSTILE)
    AuditLog(world.store).append("promote", "bolts", {"champion": HOSTILE}, {HOSTILE: "b"}, HOSTILE, author)
    served = ServedTask(
        task="bolts",
        version=2,
        digest="d" * 64,
        wanted_version=3,
        wanted_digest="e" * 64,
        problem=HOSTILE,
        rule="f" * 64,
        canary={"version": 3, "share": 0.1},
        shadow_version=1,
        backbone=HOSTILE,
    )
    text = f'ship_prompt_loads_total{{engine={json.dumps(HOSTILE[:90])},backbone="b"}} 3\n'
    return make_console(
        world=world,
        endpoint=FakeEndpoint(text=text, served={"bolts": served}, ready={"ready": True, "detail": HOSTILE}),
    )


@pytest.fixture
def browser(console: Console) -> TestClient:
    return console.sign_in(console="admin")


@pytest.mark.parametrize("path", PAGES)
def test_what_others_wrote_stays_text(browser: TestClient, path: str) -> None:
    reply = browser.get(path)
    assert reply.status_code == 200, reply.text
    for tag, attributes in Elements(reply.text).found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert "evil" not in (attributes.get("src") or ""), attributes
        assert tag != "script" or (attributes.get("src") or "").startswith("/static/"), attributes
        assert tag != "style"
    assert "\u202e" not in reply.text
    assert "\x00" not in reply.text


def test_hostile_text_is_shown(browser: TestClient) -> None:
    for path in ("/fleet", "/audit", "/endpoint"):
        assert html.escape("<script src=//evil.example/x.js>") in browser.get(path).text.replace(
            "&#34;", "&quot;"
        )


@pytest.mark.parametrize(
    "path", [*PAGES, "/sign-in", "/nothing", "/fleet.json", "/fleet?size=x", "/static/x/y"]
)
def test_every_reply_has_the_headers(browser: TestClient, path: str) -> None:
    headers = browser.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


def test_an_error_that_nobody_expected_has_the_headers(console: Console) -> None:
    def fail(when: str) -> None:
        raise RuntimeError("unexpected")

    console.world.objects.hook = fail
    browser = TestClient(console.app, raise_server_exceptions=False)
    reply = browser.get("/fleet", headers={"Authorization": f"Bearer ship_{'0' * 12}_{'0' * 64}"})
    assert (reply.status_code, "unexpected" in reply.text) == (500, False)
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS


def test_a_method_that_a_path_does_not_have_is_refused_with_one_that_it_has(browser: TestClient) -> None:
    for method, path, allowed in (("PUT", "/fleet", "GET"), ("GET", "/sign-out", "POST")):
        refused = browser.request(method, path)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert "content-security-policy" in refused.headers


@pytest.mark.parametrize("path", PAGES)
def test_the_json_beside_a_page_is_its_data(browser: TestClient, path: str) -> None:
    page = browser.get(path).text
    links = [
        one["href"] for tag, one in Elements(page).found if tag == "a" and ".json" in (one.get("href") or "")
    ]
    assert links == [f"{path}.json"]
    found = browser.get(f"{path}.json")
    assert found.headers["content-type"] == "application/json"
    text = html.unescape(page)
    for value in leaves(found.json()):
        if len(value) > 3 and value.isprintable():
            assert value in text or value[:12] in text


def leaves(value: object) -> Iterator[str]:
    """Names of tasks, kinds and texts in a page's data that a page shows."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name in ("task", "action", "reason", "text", "by", "detail") or isinstance(one, list):
                yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("path", PAGES)
def test_pages_can_be_used_without_eyes_and_without_a_mouse(browser: TestClient, path: str) -> None:
    elements = Elements(browser.get(path).text).found
    tags = [tag for tag, _ in elements]
    assert (tags.count("main"), tags.count("h1"), dict(elements)["html"].get("lang")) == (1, 1, "en")
    assert ("a", {"class": "skip", "href": "#main"}) in elements
    ids = [one["id"] for _, one in elements if "id" in one]
    assert len(ids) == len(set(ids))
    labelled = {one.get("for") for tag, one in elements if tag == "label"}
    fields = [one for tag, one in elements if tag in ("input", "select") and one.get("type") != "hidden"]
    assert [one for one in fields if one.get("id") not in labelled] == []
    assert all(one.get("scope") for tag, one in elements if tag == "th")
    assert all("alt" in one for tag, one in elements if tag == "img")


def test_no_page_and_no_file_names_another_machine() -> None:
    """But for the licences' comments, and names of XML."""
    allowed = {"http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot"}
    for folder in ("templates", "static"):
        for path in (FOLDER / folder).rglob("*"):
            if path.is_file() and path.name not in ("LICENSE", "NOTICE"):
                found = set(
                    re.findall(r"(?:https?:)?//[a-z0-9-]+(?:\.[a-z0-9-]+)+[^\s\"'`);]*", path.read_text())
                )
                assert found <= allowed, (path, found)


def test_templates_have_no_inline_script_or_style() -> None:
    for path in (FOLDER / "templates").glob("*.html"):
        text = path.read_text()
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|\|\s*safe", text
        ), path


def test_static_files_are_kept_for_good_at_urls_of_their_content(console: Console) -> None:
    browser = console.browser()
    reply = browser.get(asset_url("console.css"))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (
        browser.get(asset_url("vendor/htmx/htmx.min.js"))
        .headers["content-type"]
        .startswith("text/javascript")
    )
    for path in ("/static/0000000000000000/console.css", "/static/x/../app.py", "/static/x/..%2fapp.py"):
        assert browser.get(path).status_code == 404
    assert {"vendor/htmx/LICENSE", "vendor/uplot/LICENSE", "vendor/NOTICE"} <= find_assets().keys()


def test_a_token_of_other_tasks_sees_nothing_of_this_one(console: Console) -> None:
    console.world.add("caps")
    browser = console.sign_in("eva", "admin", predict=("caps",))
    for path in ("/fleet", "/audit", "/endpoint"):
        for found in (browser.get(path), browser.get(f"{path}.json")):
            assert found.status_code == 200
            assert "bolts" not in found.text
    assert browser.get("/audit/verify").status_code == 403
    assert browser.get("/audit/verify.json").status_code == 403


def test_an_error_is_a_page_a_document_or_a_part_of_a_page(browser: TestClient) -> None:
    assert "<h1>Not found</h1>" in browser.get("/nothing").text
    assert browser.get("/nothing.json").json()["error"]["status"] == 404
    assert browser.get("/audit?since=x").status_code == 422
    part = browser.get("/audit?since=x", headers={"HX-Request": "true"})
    assert part.text.startswith('<p class="message bad"')


def test_plain_values_hold_no_secret_and_no_odd_number() -> None:
    assert plain({"a": float("nan"), "b": (1, float("inf")), 3: "x"}) == {"a": None, "b": [1, None], "3": "x"}
    assert "hunter2" not in json.dumps(plain({"url": Url("postgresql://me:hunter2@db/mlflow")}))


def test_a_query_is_changed_in_place() -> None:
    assert (
        with_query("/fleet", {"q": "", "tag": ["a=b", "c=d"]}, page=2) == "/fleet?tag=a%3Db&tag=c%3Dd&page=2"
    )
    assert with_query("/fleet", {"page": 1}, page=None) == "/fleet"
