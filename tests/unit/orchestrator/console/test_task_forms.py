"""What holds of every page of one task: labelled fields, ids that are used once, nothing inline."""

from collections import Counter
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from tests.unit.orchestrator.console.factory import make_console
from tests.unit.orchestrator.registry.factory import World

PAGES = (
    "/tasks/bolts/about",
    "/tasks/bolts/about?version=2&truth=dent&answer=good",
    "/tasks/bolts/picture?place=3",
    "/tasks/bolts/nearest?place=3",
    "/tasks/bolts/threshold?value=0.9",
    "/tasks/bolts/threshold?knob=escape&preview=true",
    "/tasks/bolts/compare?a=1&b=2",
    "/tasks/bolts/compare?a=1&b=1",
)
Element = tuple[str, dict[str, str | None]]


class Elements(HTMLParser):
    """Elements of a page, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[Element] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def browser() -> TestClient:
    """A person who may decide, while a promotion waits."""
    world = World()
    for number in (1, 2):
        world.add_tuned(number)
    world.rollouts().promote("bolts", 1)
    author = Author(by="anna", host="pc")
    Approvals(world.store, AuditLog(world.store)).change_patterns(("*",), (), author)
    world.rollouts("ben").promote("bolts", 2)
    return make_console(world=world).sign_in("jonas", "decide")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_used_without_eyes_and_has_nothing_inline(browser: TestClient, path: str) -> None:
    reply = browser.get(path)
    assert reply.status_code == 200, reply.text
    found = Elements(reply.text).found
    ids = Counter(one["id"] for _, one in found if one.get("id"))
    assert not [name for name, number in ids.items() if number > 1]
    labelled = {one.get("for") for tag, one in found if tag == "label"}
    fields = [one for tag, one in found if tag in ("input", "select") and one.get("type") != "hidden"]
    assert {one.get("id") for one in fields} <= labelled
    forms = [one for tag, one in found if tag == "form" and one.get("method") == "post"]
    values = [one for tag, one in found if one.get("name") == "csrf"]
    assert len(values) == len(forms)
    assert sum(one.get("name") == "reason" and "required" in one for one in fields) == len(forms) - 1
    for tag, one in found:
        assert tag != "style"
        assert not any(name == "style" or name.startswith("on") for name in one), one
        assert tag != "script" or (one.get("src") or "").startswith("/static/")
        assert tag != "img" or one.get("alt") is not None
