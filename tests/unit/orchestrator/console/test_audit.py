"""The audit pages: entries, filters, pages, verification."""

import pytest
from fastapi.testclient import TestClient

from orchestrator.store.audit.log import entry_key
from orchestrator.store.audit.search import Wanted, search_page
from tests.unit.orchestrator.console.factory import Console, make_console
from tests.unit.orchestrator.registry.factory import NOW_S, World, make_bolts


@pytest.fixture
def world() -> World:
    world = make_bolts()
    world.now_s = NOW_S + 86_400
    world.rollouts(by="eva").rollback("bolts")
    world.add("caps")
    world.rollouts(by="Eva").promote("caps", 1)
    return world


@pytest.fixture
def console(world: World) -> Console:
    console = make_console(world=world)
    console.clock.now_s = NOW_S + 90_000
    return console


@pytest.fixture
def browser(console: Console) -> TestClient:
    return console.sign_in()


def found(browser: TestClient, query: str = "") -> list[tuple[str, str | None, str]]:
    entries = browser.get(f"/audit.json?{query}").json()["entries"]
    return [(one["action"], one["task"], one["by"]) for one in entries]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("task=caps", [("promote", "caps", "Eva")]),
        ("by=eva", [("promote", "caps", "Eva"), ("rollback", "bolts", "eva")]),
        ("action=rollback", [("rollback", "bolts", "eva")]),
        ("by=anna&action=promote", [("promote", "bolts", "anna")] * 2),
        ("since=2h&task=bolts", [("rollback", "bolts", "eva")]),
        ("until=2h&task=bolts", [("promote", "bolts", "anna")] * 2),
        ("by=nobody", []),
    ],
)
def test_entries_are_found_by_task_person_kind_and_time(
    browser: TestClient, query: str, expected: list[tuple[str, str, str]]
) -> None:
    assert found(browser, query) == expected


def test_an_entry_is_told_whole(browser: TestClient) -> None:
    page = browser.get("/audit?task=bolts").text
    for text in ("rollback", "champion v2 -&gt; v1", "on line-pc", 'datetime="2027-01-16T08:00:00Z"'):
        assert text in page


def test_pages_of_entries_go_on_where_the_last_one_ended(browser: TestClient) -> None:
    first = browser.get("/audit.json?limit=2").json()
    numbers = [one["sequence"] for one in first["entries"]]
    second = browser.get(f"/audit.json?limit=100&before={first['before']}").json()
    numbers += [one["sequence"] for one in second["entries"]]
    assert numbers == list(range(numbers[0], 0, -1))
    assert second["before"] is None


def test_a_search_reads_a_bounded_number_of_entries(world: World, console: Console) -> None:
    page = search_page(console.services.audit, Wanted(task="nothing"), max_read=2)
    assert page.entries == ()
    assert page.before is not None
    rest = search_page(console.services.audit, Wanted(), before=page.before)
    assert rest.before is None
    assert [entry.sequence for entry in rest.entries] == list(range(page.before - 1, 0, -1))


def test_a_damaged_entry_is_shown_as_damaged(world: World, console: Console, browser: TestClient) -> None:
    world.objects.stored[entry_key(3)] = b"{", 1.0
    entries = {one["sequence"]: one for one in browser.get("/audit.json").json()["entries"]}
    assert "Invalid JSON" in entries[3]["damaged"]
    assert entries[3].keys() == entries[4].keys()
    assert 'badge bad">damaged</span> audit/000000000003.json' in browser.get("/audit").text
    few = console.sign_in("max", "look", ("caps",))
    assert [one["sequence"] for one in few.get("/audit.json").json()["entries"]] == [max(entries)]


def test_verification_names_what_was_changed(world: World, browser: TestClient) -> None:
    whole = browser.get("/audit/verify.json").json()
    assert whole["breaks"] == []
    pinned = browser.get(f"/audit/verify?known={whole['head_text']}")
    assert "nothing is missing or changed" in pinned.text
    data, time_s = world.objects.stored[entry_key(3)]
    world.objects.stored[entry_key(3)] = data.replace(b"anna", b"otto"), time_s
    broken = browser.get("/audit/verify.json").json()["breaks"]
    assert (broken[0]["place"], broken[0]["kind"]) == (entry_key(3), "changed")
    assert entry_key(3) in browser.get("/audit/verify").text
    assert browser.get("/audit/verify?known=12").status_code == 422
