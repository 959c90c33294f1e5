"""Pages of runs: what they tell, to whom, and what may be asked of a run at work."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from orchestrator.train.ledger.failures import Failure
from orchestrator.train.run.folder import hold_run
from tests.unit.orchestrator.console.factory import Console, make_console
from tests.unit.orchestrator.train.fakes import driven, leased_ledger, make_event

WORKER = "worker-0@host:1"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return make_console(tmp_path)


@pytest.fixture
def past(tmp_path: Path) -> Path:
    """A run that is over: caps failed, welds is done, zinc was left."""
    ledger = leased_ledger("caps", "welds", "zinc")
    ledger.fail(WORKER, "caps", 1, Failure(cause=f"{HOSTILE} is no picture", is_retryable=False))
    ledger.lease(WORKER)
    ledger.complete(WORKER, "welds", 1, {"metrics": {"accuracy": 0.9, "probe_accuracy": 0.8}})
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.plan(
            {
                "backbone": "bundled",
                "num_workers": 2,
                "estimate_s": 90.0,
                "wall_s": 45.0,
                "to_tune": [
                    {"task": name, "num_images": 8, "estimate_s": 30.0} for name in ("caps", "welds", "zinc")
                ],
                "to_reuse": ["nuts"],
                "refused": [{"task": "odd", "reasons": [f"unknown setting {HOSTILE}"]}],
                "warnings": ["caps will be late"],
            }
        )
        folder.log([make_event("failed", task="caps", cause="no picture", detail=f"Traceback {HOSTILE}")])
        folder.show(ledger.status())
        (folder.folder / "report.html").write_text("<p>A report</p>")
    return tmp_path


def test_a_past_run_tells_its_plan_what_failed_and_why(console: Console, past: Path) -> None:
    browser = console.sign_in()
    [run] = browser.get("/runs.json").json()["runs"]
    assert (run["run"], run["is_at_work"], run["counts"]) == (
        "tune-1",
        False,
        {"failed": 1, "done": 1, "pending": 1},
    )
    found = browser.get("/runs/tune-1/status.json").json()
    assert [(one["task"], one["word"]) for one in found["tasks"]] == [
        ("caps", "failed"),
        ("zinc", "unfinished"),
        ("welds", "done"),
    ]
    assert found["tasks"][0]["note"] == f"{HOSTILE} is no picture"
    assert found["tasks"][2]["accuracy"] == 0.9
    assert (found["plan"]["to_reuse"], found["plan"]["wall_s"]) == (["nuts"], 45.0)
    assert found["events"][0]["told"] == "failed: no picture"
    only = browser.get("/runs/tune-1/status.json?state=failed&q=ca").json()
    assert [one["task"] for one in only["tasks"]] == ["caps"]


@pytest.mark.parametrize("path", ["/runs", "/runs/tune-1/status", "/runs/tune-1/events?task=caps"])
def test_pages_of_runs_keep_foreign_text_as_text(console: Console, past: Path, path: str) -> None:
    page = console.sign_in(console="decide").get(path)
    assert page.status_code == 200, page.text
    assert "<img" not in page.text
    assert "tune-1" in page.text
    assert "hx-trigger" not in page.text, "a run that is over is not polled"


def test_events_have_the_whole_cause(console: Console, past: Path) -> None:
    browser = console.sign_in()
    found = browser.get("/runs/tune-1/events.json").json()
    assert found["events"][0]["detail"] == f"Traceback {HOSTILE}"
    assert browser.get("/runs/tune-1/events.json?task=welds").json()["events"] == []


def test_a_report_has_its_own_policy_without_scripts(console: Console, past: Path) -> None:
    reply = console.sign_in().get("/runs/tune-1/report")
    assert reply.text == "<p>A report</p>"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy


def test_a_token_for_some_tasks_sees_nothing_of_others(console: Console, past: Path) -> None:
    browser = console.sign_in(console="decide", predict=("welds",))
    for path in ("/runs.json", "/runs/tune-1/status.json", "/runs/tune-1/events.json", "/runs/tune-1/status"):
        text = browser.get(path).text
        assert not any(name in text for name in ("caps", "zinc", "nuts", "odd")), path
    assert browser.get("/runs/tune-1/report").status_code == 404
    assert browser.post("/runs/tune-1/cancel", data={"task": "caps"}).status_code in (404, 409)


@pytest.mark.parametrize("run", ["tune-2", "..", "%2e%2e", "tune-1%2f..%2ftune-1"])
def test_a_run_that_is_not_kept_is_not_found(console: Console, past: Path, run: str) -> None:
    assert console.sign_in().get(f"/runs/{run}/status.json").status_code == 404


def test_a_run_at_work_is_cancelled_and_retried_by_those_who_may(console: Console, tmp_path: Path) -> None:
    ledger = leased_ledger("caps", "welds")
    decider, looker = console.sign_in("maria", "decide"), console.sign_in("otto", "look")
    narrow = console.sign_in("eve", "decide", ("welds",))
    with hold_run(tmp_path, "tune-1", "lines.yaml") as folder:
        folder.show(ledger.status())
        with driven(folder, ledger):
            assert "every 2s" in decider.get("/runs/tune-1/status").text
            assert "every 2s" in decider.get("/runs/tune-1/live").text
            assert ask(looker, "cancel", "caps") == 403
            assert ask(narrow, "cancel", "caps") == 404
            assert ask(narrow, "stop") == 403
            assert states(decider) == {"caps": "leased", "welds": "pending"}
            assert ask(decider, "cancel", "caps") == 303
            assert states(decider) == {"caps": "cancelled", "welds": "pending"}
            assert ask(decider, "retry", "caps") == 303
            assert states(decider) == {"caps": "pending", "welds": "pending"}
            refused = decider.post("/runs/tune-1/retry", data={"task": "welds"})
            assert (refused.status_code, "it waits for a worker already" in refused.text) == (409, True)
            assert ask(decider, "cancel", "screws") == 409
            assert ask(decider, "cancel") == 422, "without a name it is no request for all of them"
            assert ask(decider, "stop") == 303
            del decider.headers["X-CSRF-Token"]
            assert ask(decider, "cancel", "caps") == 403
    narrow.headers["X-CSRF-Token"] = "guessed"
    assert ask(narrow, "cancel", "welds") == 403


def test_a_run_that_is_over_takes_no_request(console: Console, past: Path) -> None:
    refused = console.sign_in(console="decide").post("/runs/tune-1/retry", data={"task": "caps"})
    assert (refused.status_code, "this run is over" in refused.text) == (409, True)


def ask(browser: TestClient, kind: str, *tasks: str) -> int:
    return browser.post(f"/runs/tune-1/{kind}", data={"task": list(tasks)}).status_code


def states(browser: TestClient) -> dict[str, str]:
    return {one["task"]: one["state"] for one in browser.get("/runs/tune-1/status.json").json()["tasks"]}
