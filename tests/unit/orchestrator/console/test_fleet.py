"""The page of the fleet: what it says of each task, filters, orders, the map, and how little it asks."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from orchestrator.client import ServedTask
from orchestrator.registry.advice import Advice
from orchestrator.registry.versions import METRICS_TAG, VERDICT_TAG
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from tests.unit.orchestrator.console.factory import Console, FakeEndpoint, make_console
from tests.unit.orchestrator.registry.factory import World, make_catalog_writer


def add(
    world: World,
    task: str,
    accuracy: float = 0.9,
    *,
    serves: bool = True,
    tags: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    advice: Advice | None = None,
) -> None:
    """A task with one version, its champion or its challenger."""
    found = {"accuracy": accuracy, "accuracy_low": accuracy - 0.05, "accuracy_high": accuracy + 0.05}
    version = world.add(task)
    kept = world.mlflow.versions[f"ship.{task}"][version].tags
    kept[METRICS_TAG] = json.dumps({**found, **(metrics or {})})
    if advice is not None:
        kept[VERDICT_TAG] = advice.to_json()
    world.mlflow.models[f"ship.{task}"].tags.update(tags or {})
    world.mlflow.models[f"ship.{task}"].aliases["champion" if serves else "challenger"] = str(version)


@pytest.fixture
def world() -> World:
    world = World()
    add(world, "caps", 0.95, tags={"plant": "ulm", "line": "2"})
    add(world, "bolts", 0.65, tags={"plant": "ulm", "line": "10"})
    add(world, "nuts", 0.8, tags={"plant": "brno", "line": "2"}, metrics={"num_test": 12.0})
    advice = Advice(kind="needs-data", gate="guessing", text="add about 40 held-out images")
    add(world, "welds", 0.5, serves=False, tags={"plant": "brno", "line": "2"}, advice=advice)
    add(world, "old", 0.9, serves=False)
    model = world.mlflow.models["ship.old"]
    model.aliases = {"retired": "1"}
    return world


@pytest.fixture
def console(world: World) -> Console:
    return make_console(world=world)


@pytest.fixture
def browser(console: Console) -> TestClient:
    return console.sign_in()


def names(browser: TestClient, query: str = "") -> list[str]:
    found = browser.get(f"/fleet.json?{query}")
    assert found.status_code == 200, found.text
    return [one["task"] for one in found.json()["tasks"]]


def row(browser: TestClient, task: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = browser.get("/fleet.json").json()["tasks"]
    return next(one for one in rows if one["task"] == task)


def test_a_task_is_told_whole(browser: TestClient) -> None:
    caps = row(browser, "caps")
    told = (caps["verdict"], caps["champion"], caps["accuracy"], caps["accuracy_low"], caps["accuracy_high"])
    assert told == ("serves", 1, 0.95, pytest.approx(0.9), pytest.approx(1.0))
    assert (caps["tags"], caps["challenger"], caps["rule"], caps["drift"]) == (
        {"plant": "ulm", "line": "2"},
        None,
        None,
        None,
    )
    welds = row(browser, "welds")
    assert (welds["verdict"], welds["champion"], welds["is_of_challenger"]) == ("needs-data", None, True)
    page = browser.get("/fleet").text
    for text in ("caps", "0.950", "(0.900 to 1.000)", "plant=ulm", "needs data", "not watched"):
        assert text in page


def test_what_needs_attention_comes_first_with_its_reason(browser: TestClient) -> None:
    assert names(browser) == ["welds", "nuts", "bolts", "caps"]
    reasons = {one["task"]: one["reasons"] for one in browser.get("/fleet.json").json()["tasks"]}
    assert [(one["severity"], one["kind"]) for one in reasons["welds"]] == [("bad", "idle")]
    assert reasons["welds"][0]["text"] == "no version serves: add about 40 held-out images"
    assert [(one["severity"], one["kind"]) for one in reasons["nuts"]] == [("warn", "finding")]
    assert reasons["caps"] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sort=task", ["bolts", "caps", "nuts", "welds"]),
        ("sort=task&reverse=true", ["welds", "nuts", "caps", "bolts"]),
        ("sort=accuracy", ["welds", "bolts", "nuts", "caps"]),
        ("sort=accuracy&reverse=true", ["caps", "nuts", "bolts", "welds"]),
        ("sort=task&retired=true", ["bolts", "caps", "nuts", "old", "welds"]),
        ("sort=task&verdict=retired", ["old"]),
        ("sort=task&verdict=serves", ["bolts", "caps", "nuts"]),
        ("sort=task&tag=plant%3Dulm", ["bolts", "caps"]),
        ("sort=task&tag=plant%3Dbrno&tag=line%3D2", ["nuts", "welds"]),
        ("sort=task&tag=plant%3Dul", []),
        ("sort=task&q=ULM", ["bolts", "caps"]),
        ("sort=task&q=olt", ["bolts"]),
        ("sort=task&size=2", ["bolts", "caps"]),
        ("sort=task&size=2&page=2", ["nuts", "welds"]),
        ("sort=task&size=2&page=99", ["nuts", "welds"]),
    ],
)
def test_filters_orders_and_pages_are_in_the_url(
    browser: TestClient, query: str, expected: list[str]
) -> None:
    assert names(browser, query) == expected


@pytest.mark.parametrize(
    "query", ["sort=password", "size=0", "size=1001", "page=0", "verdict=x", f"q={'a' * 201}"]
)
def test_a_url_that_is_not_understood_is_refused(browser: TestClient, query: str) -> None:
    assert browser.get(f"/fleet?{query}").status_code == 422
    assert browser.get(f"/fleet.json?{query}").status_code == 422


def test_links_of_the_page_keep_the_view(browser: TestClient) -> None:
    page = browser.get("/fleet?tag=plant%3Dulm&sort=accuracy&size=100").text
    # By name, in the same view.
    assert 'href="/fleet?tag=plant%3Dulm&amp;sort=task&amp;size=100"' in page
    assert 'aria-sort="ascending"' in page


def test_the_map_has_the_worst_and_the_mean_of_each_cell(browser: TestClient) -> None:
    found = browser.get("/fleet.json").json()["map"]
    assert (found["down"], found["across"]) == ("plant", "line")
    assert (found["rows"], found["columns"]) == (["brno", "ulm"], ["2", "10"])
    brno, ulm = found["cells"]
    assert brno == [{"tasks": 2, "idle": 1, "worst": 0.5, "worst_task": "welds", "mean": 0.65}, None]
    assert [cell["worst"] for cell in ulm] == [0.95, 0.65]
    turned = browser.get("/fleet.json?across=plant&down=line").json()["map"]
    assert (turned["rows"], turned["columns"]) == (["2", "10"], ["brno", "ulm"])
    assert "0.500" in browser.get("/fleet").text


def test_a_map_of_many_values_is_bounded() -> None:
    world = World()
    for number in range(40):
        add(world, f"task-{number}", tags={"plant": f"p{number}", "line": "1"})
    found = make_console(world=world).sign_in().get("/fleet.json").json()["map"]
    assert len(found["rows"]) == 31
    assert found["cells"][-1][0]["tasks"] == 10


def test_a_token_of_some_tasks_sees_only_these(console: Console) -> None:
    browser = console.sign_in("eva", predict=("c*", "nuts"))
    found = browser.get("/fleet.json").json()
    assert {one["task"] for one in found["tasks"]} == {"caps", "nuts"}
    assert found["num_tasks"] == 2
    whole = browser.get("/fleet").text + json.dumps(found)
    for hidden in ("bolts", "welds", "line=10"):
        assert hidden not in whole


def test_a_promotion_that_waits_is_a_reason(world: World, console: Console) -> None:
    author = Author(by="anna", host="pc", reason="audit")
    Approvals(world.store, AuditLog(world.store)).change_patterns(("caps",), (), author)
    world.add("caps", 2)
    world.rollouts().promote("caps", 2)
    caps = row(console.sign_in(), "caps")
    assert caps["pending"]["version"] == 2
    assert [(one["severity"], one["kind"]) for one in caps["reasons"]] == [("info", "approval")]


def test_a_catalog_that_is_behind_is_told(world: World) -> None:
    make_catalog_writer(world).update()
    world.add("caps", 2)
    world.mlflow.models["ship.caps"].aliases["champion"] = "2"
    caps = row(make_console(world=world).sign_in(), "caps")
    assert (caps["champion"], caps["serves"]) == (2, 1)
    assert [(one["severity"], one["kind"]) for one in caps["reasons"]] == [("warn", "behind")]


def test_traffic_and_problems_come_from_the_endpoint(world: World) -> None:
    endpoint = FakeEndpoint(
        text=(
            'ship_answers_total{task="caps",ingress="a"} 30\nship_answers_total{task="caps",ingress="b"} 10\n'
            'ship_decisions_total{task="caps",decision="label",ingress="a"} 30\n'
            'ship_decisions_total{task="caps",decision="unsure_far",ingress="a"} 4\n'
        ),
        served={
            "bolts": ServedTask(
                task="bolts",
                version=None,
                digest=None,
                wanted_version=1,
                wanted_digest="d" * 64,
                problem="a digest is wrong",
            )
        },
    )
    browser = make_console(world=world, endpoint=endpoint).sign_in()
    caps, bolts, nuts = (row(browser, task) for task in ("caps", "bolts", "nuts"))
    assert (caps["answers"], caps["unsure"], nuts["answers"]) == (40.0, 4.0, None)
    assert bolts["reasons"][0] == {"severity": "bad", "kind": "endpoint", "text": "a digest is wrong"}
    assert names(browser, "sort=traffic")[0] == "caps"
    assert "10.0% unsure" in browser.get("/fleet").text


def test_an_endpoint_that_is_away_leaves_the_page_as_it_is(world: World) -> None:
    browser = make_console(world=world, endpoint=FakeEndpoint(is_away=True)).sign_in()
    found = browser.get("/fleet.json").json()
    assert len(found["tasks"]) == 4
    assert found["messages"] == ["http://endpoint does not answer"]


@pytest.mark.parametrize("num_tasks", [3, 120])
def test_mlflow_and_the_store_are_not_asked_once_a_task(num_tasks: int) -> None:
    world = World()
    for number in range(num_tasks):
        for version in (1, 2):
            world.add(f"task-{number}", version)
        # The champion is not the newest version, which a listing of MLflow's server leaves out.
        world.mlflow.models[f"ship.task-{number}"].aliases.update({"champion": "1", "challenger": "2"})
    console = make_console(world=world)
    browser = console.sign_in()
    world.mlflow.calls.clear()
    reads: list[str] = []
    world.objects.hook = lambda when: reads.append(when) if when == "before" else None
    assert len(browser.get("/fleet.json?size=1000").json()["tasks"]) == num_tasks
    assert len(world.mlflow.calls) <= 4
    assert len(reads) <= 6
