"""The endpoint's page: what it makes of metrics, and what of an endpoint that does not answer."""

import math
from typing import Any

import pytest

from orchestrator.client import ServedTask
from orchestrator.console.endpoint_state import Samples
from tests.unit.orchestrator.console.factory import FakeEndpoint, make_console

METRICS = """
ship_prompt_loads_total{engine="a",backbone="f1"} 7
ship_prompt_loads_total{engine="b",backbone="f1"} 2
ship_resident_bytes{engine="a",backbone="f1"} 5000000
ship_engine_precision{engine="a",precision="bfloat16"} 1
ship_stage_seconds_bucket{stage="queue",le="0.1",ingress="x"} 4
ship_stage_seconds_bucket{stage="queue",le="0.2",ingress="x"} 8
ship_stage_seconds_bucket{stage="queue",le="+Inf",ingress="x"} 10
ship_stage_seconds_count{stage="queue",ingress="x"} 10
ship_stage_seconds_sum{stage="queue",ingress="x"} 1.5
ship_requests_total{route="/v1/predict",status="200",ingress="x"} 5
ship_requests_total{route="/v1/predict",status="200",ingress="y"} 6
ship_shadow_compared_total{task="caps",ingress="x"} 40
ship_shadow_agreed_total{task="caps",ingress="x"} 38
"""


def task(name: str, version: int | None, wanted: int, **more: Any) -> ServedTask:
    values = {
        "task": name,
        "version": version,
        "digest": None,
        "wanted_version": wanted,
        "wanted_digest": "d" * 64,
    }
    return ServedTask(**{**values, "problem": None, **more})  # type: ignore[arg-type]


@pytest.fixture
def endpoint() -> FakeEndpoint:
    served = [
        task("bolts", 1, 2),
        task("caps", 2, 2, canary={"version": 3, "share": 0.05}, shadow_version=1),
        task("nuts", None, 1),
        task("welds", 1, 2, problem="a digest is wrong"),
        task("rules", 1, 1, rule=None, wanted_rule="e" * 64),
    ]
    return FakeEndpoint(text=METRICS, served={one.task: one for one in served})


def test_engines_stages_replies_and_trials_are_read_from_the_metrics(endpoint: FakeEndpoint) -> None:
    browser = make_console(endpoint=endpoint).sign_in()
    found = browser.get("/endpoint.json").json()
    a, b = found["engines"]
    assert (a["engine"], a["loads"], a["resident_bytes"], a["precision"]) == ("a", 7, 5_000_000, "bfloat16")
    assert (b["loads"], b["resident_bytes"], b["precision"]) == (2, None, None)
    assert found["replies"] == [{"route": "/v1/predict", "status": "200", "count": 11}]
    (queue,) = found["stages"]
    assert (queue["count"], queue["mean_s"]) == (10, pytest.approx(0.15))
    assert (queue["p50_s"], queue["p95_s"]) == (pytest.approx(0.125), 0.2)
    (caps,) = found["trials"]
    assert (caps["canary"], caps["shadow"], caps["compared"], caps["agreed"]) == (
        {"version": 3, "share": 0.05},
        1,
        40,
        38,
    )
    page = browser.get("/endpoint").text
    for text in ("95.0%", "5.0 MB", "v3, 5.0% of the requests", "a digest is wrong"):
        assert text in page


def test_residency_is_told_of_each_task_and_filtered(endpoint: FakeEndpoint) -> None:
    browser = make_console(endpoint=endpoint).sign_in()
    found = browser.get("/endpoint.json").json()
    assert {one["task"]: one["residency"] for one in found["tasks"]} == {
        "bolts": "loading",
        "caps": "served",
        "nuts": "absent",
        "rules": "loading",
        "welds": "refused",
    }
    assert found["counts"] == {"served": 1, "loading": 2, "absent": 1, "refused": 1}
    chosen = browser.get("/endpoint.json?residency=loading&q=rul").json()
    assert [one["task"] for one in chosen["tasks"]] == ["rules"]
    second = browser.get("/endpoint.json?size=2&page=2").json()
    assert ([one["task"] for one in second["tasks"]], second["num_pages"]) == (["nuts", "rules"], 3)


def test_an_endpoint_that_is_away_or_not_ready_is_said(endpoint: FakeEndpoint) -> None:
    endpoint.ready = {"ready": False, "detail": "no catalog yet"}
    browser = make_console(endpoint=endpoint).sign_in()
    assert "not ready" in browser.get("/endpoint").text
    assert "no catalog yet" in browser.get("/endpoint").text
    away = make_console(endpoint=FakeEndpoint(is_away=True)).sign_in()
    assert away.get("/endpoint").status_code == 200
    assert "http://endpoint does not answer" in away.get("/endpoint").text
    assert "was given no endpoint" in make_console().sign_in().get("/endpoint").text


def test_metrics_that_cannot_be_read_leave_the_rest(endpoint: FakeEndpoint) -> None:
    endpoint.text = "ship_requests_total{ not metrics"
    found = make_console(endpoint=endpoint).sign_in().get("/endpoint.json").json()
    assert (len(found["tasks"]), found["engines"]) == (5, [])
    assert found["problems"][0].startswith("its metrics cannot be read")


def test_quantiles_of_a_histogram() -> None:
    text = "\n".join(f'h_bucket{{le="{le}"}} {count}' for le, count in (("1", 0), ("2", 10), ("+Inf", 10)))
    samples = Samples(f"{text}\n")
    assert samples.quantile("h", 0.5) == 1.5
    assert samples.quantile("h", 1.0) == 2.0
    assert samples.quantile("nothing", 0.5) is None
    assert Samples('h_bucket{le="1"} 0\nh_bucket{le="+Inf"} 0\n').quantile("h", 0.5) is None
    assert samples.total("nothing") is None
    assert not math.isnan(samples.quantile("h", 0.0) or 0.0)
