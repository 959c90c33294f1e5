"""The page that compares two versions, and the decisions that are made on it."""

from typing import Any

import pytest

from orchestrator.registry.versions import GATE_REASON_TAG, GATE_TAG, REFUSED_TAG
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog, AuditRecord
from orchestrator.store.documents.audit import Author
from tests.unit.orchestrator.console.factory import Console, make_console
from tests.unit.orchestrator.registry.factory import World

URL = "/tasks/bolts/compare"


def make_world() -> World:
    """The first of two versions serves, the second waits for a decision."""
    world = World()
    for number in (1, 2):
        world.add_tuned(number)
    world.rollouts().promote("bolts", 1)
    world.move_by_hand("challenger", 2)
    return world


@pytest.fixture
def console() -> Console:
    return make_console(world=make_world())


def newest(console: Console) -> AuditRecord:
    return next(iter(AuditLog(console.world.store).newest())).record


def champion(console: Console) -> int | None:
    return console.world.rollouts().read("bolts").version("champion")


def form(version: int = 2, **changes: Any) -> dict[str, Any]:
    return {"version": version, "reason": "seen on line 3", "back": "1-2", **changes}


def test_the_challenger_is_compared_with_the_champion(console: Console) -> None:
    browser = console.sign_in()
    found = browser.get(f"{URL}.json").json()
    assert (found["a"]["version"], found["b"]["version"], found["problem"]) == (1, 2, None)
    result = found["comparison"]
    # They answer alike: of 600 pictures every tenth is wrong.
    assert (result["num_images"], result["num_fixed"], result["num_broken"]) == (600, 0, 0)
    assert (result["num_both_wrong"], len(result["both_wrong"])) == (60, 48)
    assert result["both_wrong"][0]["places"] == [0, 0]
    page = browser.get(f"{URL}?a=1&b=2")
    assert page.status_code == 200
    assert "/tasks/bolts/picture.jpg?version=2&amp;place=0" in page.text
    assert "Promote" not in page.text
    assert browser.get(f"{URL}?a=1&b=9").status_code == 404


def test_without_evidence_the_page_says_why() -> None:
    world = make_world()
    world.add_tuned(3, keeps_held_out=False)
    browser = make_console(world=world).sign_in("jonas", "decide")
    page = browser.get(f"{URL}?a=1&b=3")
    assert page.status_code == 200
    assert "has no answers on held-out images" in page.text
    assert "Promote version 3" in page.text


def test_a_promotion_serves_with_its_reason_in_the_log(console: Console) -> None:
    reply = console.sign_in("jonas", "decide").post("/tasks/bolts/promote", data=form())
    assert (reply.status_code, reply.headers["location"]) == (303, f"{URL}?a=1&b=2")
    assert champion(console) == 2
    logged = newest(console)
    assert (logged.action, logged.by, logged.reason) == ("promote", "jonas", "seen on line 3")


def test_a_version_that_the_gate_refused_takes_force(console: Console) -> None:
    tags = {GATE_TAG: "challenger", REFUSED_TAG: "true", GATE_REASON_TAG: "It is worse than the probe."}
    console.world.registry.tag_version("bolts", 2, tags)
    browser = console.sign_in("jonas", "decide")
    refused = browser.post("/tasks/bolts/promote", data=form())
    assert refused.status_code == 409
    assert "the gate refused version 2" in refused.text
    assert champion(console) == 1
    assert browser.post("/tasks/bolts/promote", data=form(force="true")).status_code == 303
    assert champion(console) == 2
    assert newest(console).after["forced"] is True


def test_a_withheld_version_waits_no_more(console: Console) -> None:
    browser = console.sign_in("jonas", "decide")
    assert "Withhold version 2" in browser.get(f"{URL}?a=1&b=2").text
    reply = browser.post("/tasks/bolts/decide", data=form(decision="withhold"))
    assert reply.status_code == 303
    assert "challenger" not in console.world.aliases()
    assert champion(console) == 1
    logged = newest(console)
    assert (logged.action, logged.by, logged.reason) == ("reject", "jonas", "seen on line 3")
    assert logged.after["withheld"] == {"version": 2}
    assert "Withhold version 2" not in browser.get(f"{URL}?a=1&b=2").text
    for version, said in ((2, "does not wait for a decision"), (1, "version 1 of task")):
        again = browser.post("/tasks/bolts/decide", data=form(version, decision="withhold"))
        assert again.status_code == 409
        assert said in again.text


def test_where_an_approval_is_needed_another_person_gives_it(console: Console) -> None:
    store = console.world.store
    Approvals(store, AuditLog(store)).change_patterns(("*",), (), Author(by="anna", host="pc"))
    jonas = console.sign_in("jonas", "decide")
    assert jonas.post("/tasks/bolts/promote", data=form()).status_code == 303
    assert champion(console) == 1
    page = jonas.get(f"{URL}?a=1&b=2").text
    assert "Version 2 waits for an approval: jonas asked" in page
    own = jonas.post("/tasks/bolts/decide", data=form(decision="approve"))
    assert own.status_code == 409
    assert "another person has to approve it" in own.text
    maria = console.sign_in("maria", "decide")
    other = maria.post("/tasks/bolts/decide", data=form(1, decision="approve"))
    assert (other.status_code, champion(console)) == (409, 1)
    assert maria.post("/tasks/bolts/decide", data=form(decision="approve")).status_code == 303
    assert champion(console) == 2
    assert (newest(console).action, newest(console).by) == ("approve", "maria")


def test_a_request_is_rejected_or_its_version_withheld(console: Console) -> None:
    store = console.world.store
    Approvals(store, AuditLog(store)).change_patterns(("*",), (), Author(by="anna", host="pc"))
    jonas = console.sign_in("jonas", "decide")
    for decision in ("reject", "withhold"):
        jonas.post("/tasks/bolts/promote", data=form())
        assert jonas.get(f"{URL}.json").json()["pending"]["version"] == 2
        assert jonas.post("/tasks/bolts/decide", data=form(decision=decision)).status_code == 303
        assert jonas.get(f"{URL}.json").json()["pending"] is None
    assert champion(console) == 1


@pytest.mark.parametrize("path", ["promote", "decide"])
def test_a_decision_takes_scope_reason_and_the_forms_value(console: Console, path: str) -> None:
    url, sent = f"/tasks/bolts/{path}", form(decision="withhold")
    before = console.world.rollouts().read("bolts").aliases
    assert console.sign_in("maria", "look").post(url, data=sent).status_code == 403
    jonas = console.sign_in("jonas", "decide")
    assert jonas.post(url, data={**sent, "reason": " "}).status_code == 400
    assert jonas.post(url, data=sent, headers={"X-CSRF-Token": "0"}).status_code == 403
    assert jonas.post(url, data={**sent, "version": "0"}).status_code == 422
    assert console.sign_in("welder", "decide", ("weld-*",)).post(url, data=sent).status_code == 404
    assert console.world.rollouts().read("bolts").aliases == before


def test_where_a_form_leads_back_to_is_this_console(console: Console) -> None:
    reply = console.sign_in("jonas", "decide").post(
        "/tasks/bolts/promote", data=form(back="//elsewhere.example")
    )
    assert reply.headers["location"] == "/tasks/bolts/about"
