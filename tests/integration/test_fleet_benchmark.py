"""The benchmark of many tasks with a handful of them: what it counts, not how fast it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.__main__ import main

pytestmark = pytest.mark.slow


def measure(tmp_path: Path, part: str, num_tasks: int) -> list[dict[str, Any]]:
    target = tmp_path / "report.json"
    main(["fleet", part, "--quick", "--tasks", str(num_tasks), "--json", str(target)], standalone=False)
    cases = json.loads(target.read_text())["cases"]
    assert {case["settings"]["tasks"] for case in cases} == {num_tasks}
    return cases


def test_the_overhead_of_real_tasks_is_told_by_where_it_goes(tmp_path: Path) -> None:
    [case] = measure(tmp_path, "overhead", 4)
    facts = case["facts"]
    assert facts["worker's seconds a task"].keys() >= {"start-up", "tuning", "after the last publication"}
    assert facts["processor's seconds a task"].keys() == {"driver", "ledger", "workers", "services"}
    assert all(mib > 0 for mib in facts["ledger, MiB at a tenth and at the end"])


def test_a_resumed_run_lists_the_store_once_and_its_workers_never(tmp_path: Path) -> None:
    [case] = measure(tmp_path, "resume", 60)
    facts = case["facts"]
    assert facts["store, while planning"]["list"] == facts["store, whole second run"]["list"] == 1


def test_many_tasks_are_planned_with_one_listing_whether_they_are_found_or_listed(tmp_path: Path) -> None:
    cases = measure(tmp_path, "plan", 30)
    assert [case["settings"]["manifest"] for case in cases] == ["found", "listed"]
    for case in cases:
        assert case["facts"]["store"] == {"list": 1, "get": 1}
        assert set(case["seconds"]) == {"whole command", "plan", "print"}
