"""The page of a task: figures, confusions that lead to their pictures, the gallery, and what is missing."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from orchestrator.console.kept import Bounded
from orchestrator.registry.thresholds import Thresholds
from ship.decision.rule import DecisionRule
from tests.unit.orchestrator.console.factory import Console, make_console
from tests.unit.orchestrator.registry.factory import LABELS, World

URL = "/tasks/bolts/about"
# The second is of a disk whose names are not UTF-8.
HOSTILE_PATHS = ("<script>alert(1)</script>.png", "caps-\udcff.png", "..%2f{{ 7 * 7 }}\n.png")
HOSTILE = ("good", "<img src=x onerror=alert(1)>", "'\"&\u202e\x07")


@pytest.fixture(scope="module")
def console() -> Console:
    """Two versions of bolts, of which the first serves; nobody changes them."""
    world = World()
    for number in (1, 2):
        world.add_tuned(number)
    world.rollouts("anna").promote("bolts", 1)
    return make_console(world=world)


@pytest.fixture(scope="module")
def browser(console: Console) -> TestClient:
    return console.sign_in()


def read(browser: TestClient, query: str = "") -> dict[str, Any]:
    reply = browser.get(f"/tasks/bolts/about.json{query}")
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_the_page_is_of_the_version_that_serves(browser: TestClient) -> None:
    found = read(browser)
    assert (found["version"], found["aliases"]) == (1, {"champion": 1})
    assert [one["version"] for one in found["versions"]] == [2, 1]
    assert found["series"]["version"] == [1, 2]
    assert found["series"]["accuracy"] == [0.9, 0.9]
    assert read(browser, "?version=2")["version"] == 2
    assert browser.get("/tasks/bolts/about.json?version=9").status_code == 404
    moved = browser.get("/tasks/bolts?version=2")
    assert (moved.status_code, moved.headers["location"]) == (303, f"{URL}?version=2")


def test_the_confusion_matrix_counts_and_leads_to_its_pictures(browser: TestClient) -> None:
    held = read(browser)["held_out"]
    # Every tenth picture of a class looks like the next one.
    assert held["labels"] == list(LABELS)
    assert held["confusion"] == [[180, 20, 0], [0, 180, 20], [20, 0, 180]]
    cell = read(browser, "?truth=dent&answer=good&limit=5")["pictures"]
    assert (cell["total"], len(cell["shown"])) == (20, 5)
    assert {(one["label"], one["answer"]) for one in cell["shown"]} == {("dent", "good")}
    assert all(one["is_false_accept"] for one in cell["shown"])
    shares = [one["probability"] for one in cell["shown"]]
    assert shares == sorted(shares, reverse=True)
    page = browser.get(f"{URL}?version=1").text
    assert f'href="{URL}?version=1&amp;truth=dent&amp;answer=good#pictures"' in page
    for query in ("?truth=dent", "?truth=dent&answer=round"):
        assert browser.get(f"/tasks/bolts/about.json{query}").status_code == 404


def test_false_accepts_come_first_in_the_gallery(browser: TestClient) -> None:
    pictures = read(browser)["pictures"]
    assert pictures["total"] == 60
    flags = [one["is_false_accept"] for one in pictures["shown"]]
    assert flags == sorted(flags, reverse=True)
    assert sum(flags) == 20
    shown = pictures["shown"][0]
    assert (shown["label"], shown["answer"], shown["decision"]) == ("dent", "good", "good")
    assert shown["label_probability"] < shown["probability"] < 1.0
    assert len(pictures["narrow"]) == 16
    assert all(one["label"] == one["answer"] for one in pictures["narrow"])


def test_decisions_are_the_standing_rules() -> None:
    world = World()
    world.add_tuned(1)
    thresholds = Thresholds(world.fresh_registry(), world.store, world.rollouts())
    thresholds.set(thresholds.standing("bolts", 1), DecisionRule(min_confidence=0.99, temperature=3.0))
    browser = make_console(world=world).sign_in()
    shown = read(browser, "?truth=good&answer=good")["pictures"]["shown"]
    assert {(one["answer"], one["decision"], one["because"]) for one in shown} == {
        ("good", "unsure", "confidence")
    }
    assert read(browser)["held_out"]["decision"]["unsure"]["num"] == 600
    assert "own threshold" in browser.get(URL).text


def test_who_decided_is_told(browser: TestClient) -> None:
    [promoted] = [one for one in read(browser)["audit"] if one["action"] == "promote"]
    assert (promoted["by"], promoted["after"]["champion"]["version"]) == ("anna", 1)
    assert "anna" in browser.get(URL).text


def test_a_version_without_held_out_answers_says_what_is_missing() -> None:
    world = World()
    world.add_tuned(1, keeps_held_out=False)
    world.add(number=2)
    browser = make_console(world=world).sign_in()
    for version in (1, 2):
        found = read(browser, f"?version={version}")
        assert found["held_out"] is found["pictures"] is None
        assert found["held_out_problem"]
        page = browser.get(f"{URL}?version={version}")
        assert page.status_code == 200
        assert found["held_out_problem"][:40] in page.text.replace("&#39;", "'")
    assert "has no answers on held-out images" in read(browser, "?version=1")["held_out_problem"]
    assert read(browser, "?version=2")["artifact_problem"]
    assert read(browser, "?version=1")["lineage"]["problem"].startswith("It has no run")


def test_hostile_names_stay_text() -> None:
    world = World()
    world.add_tuned(1, labels=HOSTILE, paths=HOSTILE_PATHS)
    console = make_console(world=world)
    browser = console.sign_in()
    for page in (f"{URL}?limit=500", f"{URL}?truth=good&answer={'%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E'}"):
        text = browser.get(page).text
        assert "<img src=x" not in text
        assert "\u202e" not in text
        assert "\x07" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;" in text
        assert "<script>" not in text
        assert "\udcff" not in text
    found = read(browser, "?limit=500")
    assert found["held_out"]["labels"] == list(HOSTILE)
    assert set(HOSTILE_PATHS) <= {one["path"] for one in found["pictures"]["shown"]}
    for place, path in enumerate(HOSTILE_PATHS):
        assert browser.get(f"/tasks/bolts/picture.json?place={place}").json()["path"] == path
        assert "<script>" not in browser.get(f"/tasks/bolts/picture?place={place}").text
    for page in ("/tasks/bolts/threshold", "/tasks/bolts/compare?a=1&b=1", "/tasks/bolts/picture?place=1"):
        reply = browser.get(page)
        assert reply.status_code == 200
        assert "<img src=x" not in reply.text


def test_many_classes_are_listed_by_their_confusions() -> None:
    world = World()
    world.add_tuned(1, labels=tuple(f"class-{number}" for number in range(31)))
    browser = make_console(world=world).sign_in()
    held = read(browser)["held_out"]
    assert held["confusion"] is None
    assert held["confused"][0]["images"] >= held["confused"][-1]["images"] > 0
    assert "class-0 answered as class-1" in browser.get(URL).text


def test_a_task_that_may_not_be_seen_is_none(console: Console) -> None:
    browser = console.sign_in("welder", predict=("weld-*",))
    paths = ("", "/about", "/about.json", "/picture?place=0", "/picture.json?place=0", "/picture.jpg?place=0")
    more = ("/attention.png?place=0", "/nearest.json?place=0", "/affinity.svg", "/compare", "/compare.json")
    for path in (*paths, *more):
        assert browser.get(f"/tasks/bolts{path}").status_code == 404, path
        assert browser.get(f"/tasks/nuts{path}").status_code == 404, path
    assert console.browser().get("/tasks/bolts/picture.jpg?place=0").status_code == 303


def test_what_was_asked_for_last_is_kept() -> None:
    kept: Bounded[str] = Bounded(2)
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    for key in "abacab":
        assert kept.get(key, lambda key=key: make(key)) == key.upper()  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]


def test_an_error_is_not_kept() -> None:
    kept: Bounded[int] = Bounded(2)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0)
    assert kept.get("a", lambda: 1) == 1
