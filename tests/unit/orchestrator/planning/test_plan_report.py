"""Plans as ``ship plan`` prints them, and as JSON."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.cli.plan_report import plan_json, print_plan
from orchestrator.manifest.model import Manifest, Terms
from orchestrator.planning.estimates import Speed
from orchestrator.planning.plan import Plan
from ship.settings.search_config import SearchConfig
from tests.unit.orchestrator.planning.factory import plan, with_terms


def test_auto_is_planned_as_a_search(manifest: Manifest) -> None:
    entry = replace(manifest.tasks[0], auto=frozenset({"kind", "augment"}))
    made = plan(replace(manifest, tasks=(entry, manifest.tasks[1])))
    spec = made.tasks[0].spec

    assert spec.search == SearchConfig().with_auto({"kind", "augment"})
    assert spec.config == manifest.tasks[0].config
    lines = printed(made)
    assert lines[0].split()[:7] == ["task", "action", "images", "kind", "head", "augment", "epochs"]
    assert lines[2].split()[3:8] == ["auto", "cls", "auto", "10", "9"]
    assert lines[3].split()[3:8] == ["ship", "cls", "none", "10", "-"]


def test_json(manifest: Manifest) -> None:
    values = json.loads(json.dumps(plan_json(plan(manifest))))

    assert values["backbone"] == {"name": "fake", "fingerprint": "f" * 64}
    assert (values["num_to_tune"], values["num_to_reuse"], values["estimate_s"]) == (2, 0, None)
    task = values["tasks"][0]
    assert (task["name"], task["action"], task["num_images"]) == ("caps", "tune", 16)
    assert task["config"]["epochs"] == 10
    assert len(task["key"]) == 64
    assert (values["estimates"], values["speed"], values["device_hours"]) == ("unknown", None, None)
    assert (values["cost"], task["cost"], task["device_hours"]) == (None, None, None)


def test_json_with_a_price_and_a_refused_task(manifest: Manifest) -> None:
    terms = Terms(priority=2, deadline_s=1_796_014_800.0, budget_s=7200.0)
    asked = with_terms(manifest, caps=terms, bolts=Terms(budget_s=1.0))
    # 160 passes: one hour.
    made = plan(asked, speed=Speed(images_per_s=160 / 3600, num_runs=5))
    values = json.loads(json.dumps(plan_json(made, 2.5)))

    assert (values["estimates"], values["speed"]["num_runs"], values["device_hours"]) == ("learned", 5, 1.0)
    assert (values["price_per_hour"], values["cost"], values["num_to_refuse"]) == (2.5, 2.5, 1)
    caps, bolts = values["tasks"]
    assert (caps["action"], caps["device_hours"], caps["cost"], caps["reasons"]) == ("tune", 1.0, 2.5, [])
    assert (caps["priority"], caps["deadline"], caps["budget_s"]) == (2, "2026-11-30T05:00:00Z", 7200.0)
    assert (bolts["name"], bolts["action"], bolts["tags"]) == ("bolts", "refuse", {"site": "ulm"})
    assert "over its budget" in bolts["reasons"][0]


def printed(made: Plan, price: float | None = None, num_workers: int | None = None) -> list[str]:
    out = io.StringIO()
    print_plan(Console(file=out, width=200), made, price, num_workers)
    return out.getvalue().splitlines()


def test_a_plan_without_a_past_says_that_time_is_unknown(manifest: Manifest) -> None:
    lines = printed(plan(manifest), 2.5)

    assert lines[0].split("│")[0].split()[:1] == ["task"]
    assert "unknown" in lines[2]
    assert lines[-2].startswith("2 to tune, 0 in the store already; time unknown, cost unknown, 0.0 MB")
    assert lines[-1].startswith("Time is unknown")


def test_a_plan_with_a_past_says_what_it_rests_on(manifest: Manifest) -> None:
    asked = with_terms(manifest, bolts=Terms(budget_s=1.0))
    lines = printed(plan(asked, speed=Speed(images_per_s=160 / 3600, num_runs=5)), 2.5)

    assert "  60 min  " in lines[2]
    assert "refuse" in lines[3]
    assert lines[4].startswith(
        "1 to tune, 0 in the store already, 1 refused; about 60 min of tuning on one worker, cost 2.50"
    )
    assert lines[5].startswith("Time is learned from 5 past tunings on this backbone: 0 training images")
    assert lines[6].startswith("refused bolts: over its budget")


@pytest.mark.parametrize(
    ("passes_a_s", "num_workers", "said"),
    [
        # 160 passes of each of two tasks.
        (160 / 720, 2, "; about 12 min with 2 workers (24 min of tuning), "),
        (160 / 720, 1, "; about 24 min with 1 worker (24 min of tuning), "),
        (160 / 720, 5, "; about 12 min with 5 workers (24 min of tuning), "),
        (160 / 20, 1, "; about 40 s with 1 worker (40 s of tuning), "),
        (160 / 9000, 1, "; about 5.0 h with 1 worker (5.0 h of tuning), "),
    ],
)
def test_a_plan_tells_the_time_of_the_wall_clock(
    manifest: Manifest, passes_a_s: float, num_workers: int, said: str
) -> None:
    made = plan(manifest, speed=Speed(images_per_s=passes_a_s, num_runs=5))
    assert said in "\n".join(printed(made, num_workers=num_workers))
    values = plan_json(made, num_workers=num_workers)
    assert values["num_workers"] == num_workers
    assert values["wall_s"] == pytest.approx(values["estimate_s"] / min(num_workers, 2))
    assert plan_json(made)["wall_s"] is None
    assert plan_json(plan(manifest), num_workers=num_workers)["wall_s"] is None


def test_tasks_that_are_all_in_the_store_take_no_time(manifest: Manifest) -> None:
    made = plan(manifest, speed=Speed(images_per_s=1.0, num_runs=5))
    published = {(task.spec.name, task.spec.key) for task in made.tasks}
    again = plan(manifest, speed=Speed(images_per_s=1.0, num_runs=5), published=published)
    assert "0 to tune, 2 in the store already; about 0 s with 1 worker" in "\n".join(
        printed(again, num_workers=1)
    )
