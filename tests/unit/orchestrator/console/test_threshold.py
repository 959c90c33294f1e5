"""The page of a threshold: its steps, and a rule that is saved as `ship threshold` saves it."""

from typing import Any

import pytest

from orchestrator.store.audit.log import AuditLog
from tests.unit.orchestrator.console.factory import Console, make_console
from tests.unit.orchestrator.registry.factory import World

URL = "/tasks/bolts/threshold"


@pytest.fixture(scope="module")
def looked_at() -> Console:
    """Nobody changes it."""
    return make_console(world=make_world())


def make_world() -> World:
    world = World()
    world.add_tuned(1)
    world.rollouts().promote("bolts", 1)
    return world


def form(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "knob": "confidence",
        "value": "0.6",
        "instead_of": "",
        "reason": "audit of May",
        **changes,
    }


def test_the_page_begins_with_the_recall_of_a_class_that_is_not_good(looked_at: Console) -> None:
    browser = looked_at.sign_in("a-maria")
    found = browser.get(f"{URL}.json").json()
    assert found["knob"] == {"kind": "recall", "label": "scratch"}
    assert (found["version"], found["standing"]["rule"], found["problem"]) == (1, None, None)
    assert found["at"] == 0
    page = browser.get(f"{URL}?value=0.95")
    assert page.status_code == 200
    chosen = browser.get(f"{URL}.json?value=0.95").json()
    assert chosen["sweep"]["steps"][chosen["at"]]["value"] == 0.95
    assert '<option value="0.95" selected>' in page.text
    assert 'type="range"' in page.text
    outcomes = {one["outcome"] for one in chosen["movers"]}
    assert outcomes == {"right", "wrong"}
    assert all(one["label"] == one["decision"] for one in chosen["movers"] if one["outcome"] == "right")


def test_without_a_script_the_list_of_values_shows_the_same(looked_at: Console) -> None:
    browser = looked_at.sign_in("b-maria")
    found = browser.get(f"{URL}.json?knob=confidence&value=0.9").json()
    step = found["sweep"]["steps"][found["at"]]
    number, of = step["figures"]["unsure"]
    page = browser.get(f"{URL}?knob=confidence&value=0.9").text
    assert f'<td data-figure="unsure">{number / of:.1%} ({number} of {of})</td>' in page


def test_what_is_no_setting_is_refused(looked_at: Console) -> None:
    browser = looked_at.sign_in("c-maria")
    for query in ("knob=luck", "value=much", "version=0", "value=-1"):
        assert browser.get(f"{URL}?{query}").status_code == 422
    assert browser.get(f"{URL}?version=7").status_code == 404


def test_an_unknown_label_is_told_on_the_page(looked_at: Console) -> None:
    found = looked_at.sign_in("d-maria").get(f"{URL}.json?knob=recall&label=%3Cb%3E").json()
    assert found["sweep"] is None
    assert "unknown label '<b>'" in found["problem"]
    page = looked_at.sign_in("e-maria").get(f"{URL}?knob=recall&label=%3Cb%3E").text
    assert "<b>" not in page


def test_a_saved_rule_decides_from_then_on_and_is_in_the_log() -> None:
    console = make_console(world=make_world())
    browser = console.sign_in("jonas", "decide")
    reply = browser.post(URL, data=form())
    assert (reply.status_code, reply.headers["location"]) == (303, f"{URL}?version=1&knob=confidence")
    found = browser.get(f"{URL}.json?knob=confidence").json()
    assert found["standing"]["set"]["by"] == "jonas"
    assert found["standing"]["decision"]["min_confidence"] == 0.6
    assert found["sweep"]["knob"]["value"] == 0.6
    newest = next(iter(AuditLog(console.world.store).newest())).record
    assert (newest.action, newest.by, newest.reason) == ("threshold", "jonas", "audit of May")
    # A form that was opened before is of another rule.
    late = browser.post(URL, data=form(value="0.8"))
    assert late.status_code == 409
    assert "was changed meanwhile" in late.text
    assert browser.get(f"{URL}.json?knob=confidence").json()["standing"] == found["standing"]
    back = browser.post(URL, data=form(knob="reset", instead_of=found["standing"]["rule"]))
    assert back.status_code == 303
    assert browser.get(f"{URL}.json").json()["standing"]["rule"] is None


def test_what_cannot_be_promised_is_refused_as_it_stands() -> None:
    browser = make_console(world=make_world()).sign_in("jonas", "decide")
    reply = browser.post(URL, data=form(knob="recall", label="scratch", value="0.999"))
    assert reply.status_code == 409
    assert "cannot be promised with 200 held-out images" in reply.text.replace("&#39;", "'")


def test_a_change_takes_the_scope_the_forms_value_and_a_reason() -> None:
    console = make_console(world=make_world())
    assert console.sign_in("maria", "look").post(URL, data=form()).status_code == 403
    browser = console.sign_in("jonas", "decide")
    assert browser.post(URL, data=form(reason=" ")).status_code == 400
    assert browser.post(URL, data=form(), headers={"X-CSRF-Token": "0"}).status_code == 403
    assert browser.post(URL, data=form(), headers={"Origin": "http://elsewhere"}).status_code == 403
    assert browser.get(f"{URL}.json").json()["standing"]["rule"] is None


def test_a_token_of_other_tasks_sees_and_changes_nothing() -> None:
    console = make_console(world=make_world())
    browser = console.sign_in("welder", "decide", ("weld-*",))
    for path in (URL, f"{URL}.json"):
        assert browser.get(path).status_code == 404
    assert browser.post(URL, data=form()).status_code == 404


def test_a_version_without_held_out_answers_says_so() -> None:
    world = World()
    world.add_tuned(1, keeps_held_out=False)
    browser = make_console(world=world).sign_in("maria")
    page = browser.get(URL)
    assert page.status_code == 200
    assert "keeps no answers about held-out images" in page.text


def test_a_preview_is_measured_on_pictures_that_the_rule_was_not_chosen_on() -> None:
    world = World()
    world.add_tuned(1, labels=("ok", "bad"))
    browser = make_console(world=world).sign_in("maria")
    found = browser.get(f"{URL}.json?knob=confidence&value=0.8&preview=true").json()
    assert found["preview"]["rule"] is None
    assert found["preview"]["decision"]["expected"]["cross_fitted"]
    assert found["preview"]["decision"]["min_confidence"] == 0.8
