"""Accounting of the loads, the rates of open loops, ratios and the table. Times are made up."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.benchmarks.__main__ import main
from tests.benchmarks.serve.load import Load, Request, closed_loop
from tests.benchmarks.serve.peers.figures import (
    ANSWERS,
    MEMORY,
    Round,
    choose_rates,
    find_ratios,
    medians,
    render_table,
)
from tests.benchmarks.serve.peers.knobs import Knobs, Launch, find_best
from tests.benchmarks.serve.peers.scene import Scene
from tests.benchmarks.serve.peers.systems import NAMES, find_systems, mix


def load_of(seconds: list[float], num_failed: int = 0, took_s: float = 2.0, num_wrong: int = 0) -> Load:
    statuses = Counter({200: len(seconds), 503: num_failed})
    return Load(seconds=seconds, statuses=statuses, took_s=took_s, mixed=[{}] * num_wrong)


def test_figures_of_a_round() -> None:
    closed = load_of([0.1] * 98 + [0.5, 0.7], num_wrong=1)
    opened = {"slow": load_of([0.2, 0.4], num_failed=6), "dead": load_of([], num_failed=3, num_wrong=2)}
    found = Round(closed=closed, opened=opened, memory_bytes=3 << 20, cpu_s=1.5).figures()
    assert found[ANSWERS] == 50.0
    assert found["p50 ms, closed"] == pytest.approx(100.0)
    assert found["p99 ms, closed"] == pytest.approx(700.0)
    assert found["not answered, %, closed"] == 0.0
    assert found["not answered, %, slow"] == 75.0
    assert found["not answered, %, dead"] == 100.0
    # Nothing was answered: the clients' time limit.
    assert found["p99 ms, dead"] == 60_000.0
    assert found["wrong"] == 3.0
    assert found[MEMORY] == 3.0
    assert found["CPU ms an answer"] == 15.0


def test_rates_come_from_the_slowest_and_from_ours() -> None:
    capacity = {"ours": 50.0, "a": 20.0, "b": 80.0}
    assert choose_rates(capacity, "ours") == {"half of the slowest": 10.0, "0.8 of ours": 40.0}
    del capacity["ours"]
    assert choose_rates(capacity, "ours") == {"half of the slowest": 10.0, "0.8 of ours": 64.0}


def test_ratios_are_paired_by_round_and_more_is_better() -> None:
    ours = [{ANSWERS: 20.0, "p99 ms, closed": 100.0, MEMORY: 300.0, "wrong": 0.0}] * 2
    theirs = [
        {ANSWERS: 10.0, "p99 ms, closed": 200.0, MEMORY: 100.0, "wrong": 0.0},
        {ANSWERS: 40.0, "p99 ms, closed": 50.0, MEMORY: 100.0, "wrong": 0.0},
    ]
    ratios = {ratio.of: ratio for ratio in find_ratios({"ours": ours, "them": theirs}, "ours", 1.0)}
    assert {ratio.against for ratio in ratios.values()} == {"them"}
    assert ratios[ANSWERS].speed == pytest.approx(1.25)
    assert ratios[ANSWERS].goal == 1.0
    assert ratios["1 / p99 ms, closed"].speed == pytest.approx(1.25)
    assert ratios["1 / p99 ms, closed"].goal == 1.0
    assert ratios["1 / MiB"].speed == pytest.approx(1 / 3)
    assert ratios["1 / MiB"].goal is None
    assert find_ratios({"them": theirs}, "ours", 1.0) == []


def test_medians_and_table() -> None:
    rounds = [{ANSWERS: value, "wrong": 1.0} for value in (3.0, 1.0, 2.0)]
    middle = medians(rounds)
    assert middle == {ANSWERS: 2.0, "wrong": 3.0}
    lines = render_table("tiny", {"ours": middle, "ray": {ANSWERS: 1.0, "wrong": 0.0}}).splitlines()
    assert lines[0] == "tiny"
    assert lines[1].split() == ["ours", "ray"]
    assert lines[2].split()[-2:] == ["2.0", "1.0"]


def test_rows_for_a_document_have_medians_and_ratios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def facts(*values: float) -> dict[str, Any]:
        return {"median": dict(zip((ANSWERS, "wrong"), values, strict=True))}

    ratio = {"of": ANSWERS, "against": "ray", "speed": 2.0, "low": 1.5, "high": 2.25}
    case = {
        "settings": {"backbone": "tiny", "tasks": 3},
        "ratios": [ratio],
        "facts": {"ours": facts(20.0, 0.0), "ray": facts(10.0, 1.0)},
    }
    lone = {"settings": {"backbone": "tiny", "tasks": 1}, "ratios": [], "facts": {"ray": facts(5.0, 0.0)}}
    file = tmp_path / "peers.json"
    file.write_text(json.dumps({"cases": [case, lone]}))
    main(["serve", "peers", "--rows", str(file)], standalone=False)
    assert capsys.readouterr().out.splitlines() == [
        "| | | ours | ray |",
        "| --- | --- | --- | --- |",
        "| tiny, 3 tasks | answers a second | 20.0 | 10.0 (2.00, quartiles 1.50 to 2.25) |",
        "|  | wrong | 0.0 | 1.0 |",
        "| tiny, 1 tasks | answers a second |  | 5.0 |",
        "|  | wrong |  | 0.0 |",
    ]


def test_settings_are_kept_only_where_they_are_better() -> None:
    speeds = {(1, 32, False): 10.0, (2, 32, False): 12.0, (2, 8, False): 11.0, (2, 32, True): 13.0}
    best, seen = find_best(
        Knobs(),
        ({"num_workers": 2}, {"max_batch": 8}, {"fast": True}),
        lambda knobs: speeds[knobs.num_workers, knobs.max_batch, knobs.fast],
    )
    assert best == Knobs(num_workers=2, fast=True)
    assert seen == {"start": 10.0, "num_workers=2": 12.0, "max_batch=8": 11.0, "fast=True": 13.0}


def test_a_launch_passes_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch(folder="/f", tasks=("a", "b"), port=80, knobs=Knobs(max_batch=8))
    monkeypatch.setenv("PEERS_LAUNCH", launch.to_json())
    assert Launch.from_env() == launch


def test_all_servers_are_asked_the_same_in_the_same_order(scene: Scene) -> None:
    systems, _ = find_systems(scene, NAMES)
    keys = {(request.task, request.content): key for key, request in systems[0].requests.items()}
    orders = []
    for system in systems:
        key_of = {id(request): key for key, request in system.requests.items()}
        requests = mix(system, scene, seed=3)
        orders.append([key_of[id(next(requests))] for _ in range(50)])
    assert len(keys) == len(scene.tasks) * len(scene.contents)
    assert all(order == orders[0] for order in orders)


def test_a_package_that_is_missing_is_named(scene: Scene) -> None:
    systems, missing = find_systems(scene, NAMES, is_installed=lambda package: package != "litserve")
    assert [system.name for system in systems] == ["ours", "fastapi", "ray"]
    (line,) = missing
    assert "litserve" in line
    assert ".[bench]" in line


def test_ours_is_started_with_the_options_that_are_given(scene: Scene, launch: Launch) -> None:
    (ours,), _ = find_systems(scene, ["ours"], ["--prompt-memory", "4"])
    command = ours.command(launch)
    assert command[-2:] == ["--prompt-memory", "4"]
    assert "--no-haproxy" in command
    assert command[command.index("--engines") + 1] == "1"
    fast = ours.command(Launch(folder="", tasks=("a",), port=1, knobs=Knobs(fast=True, num_workers=2)))
    assert "--haproxy" in fast
    assert fast[fast.index("--engines") + 1] == "2"
    assert ours.environment(launch)["SHIP_HOME"] == str(scene.folder / "home")


def test_each_reply_under_load_is_compared_with_its_own_request() -> None:
    """Four requests, of which one is answered wrongly and one refused."""

    async def answer(request: web.Request) -> web.Response:
        name = request.headers["x-task"]
        status = 503 if name == "refused" else 200
        return web.Response(text=json.dumps({"task": "right"}), status=status)

    def requests() -> list[Request]:
        return [
            Request(task=name, content=b"", path="/", task_header="x-task", check=check)
            for name, check in (
                ("right", lambda reply, _: reply["task"] == "right"),
                ("wrong", lambda reply, _: reply["task"] == "wrong"),
                ("incomplete", lambda reply, _: reply["digest"] == "0"),
                ("refused", lambda reply, _: True),
            )
        ]

    async def ask() -> Load:
        app = web.Application()
        app.router.add_post("/", answer)
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            return await asyncio.to_thread(closed_loop, url, iter(requests()), num_clients=2, duration_s=60.0)

    load = asyncio.run(ask())
    assert load.statuses == {200: 3, 503: 1}
    assert load.num_failed == 1
    assert len(load.seconds) == 3
    assert len(load.mixed) == 2
    assert load.refusals[503] == '{"task": "right"}'
