"""The benchmark of fleets on a real Ray, with a handful of tasks: what it counts, not how fast it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.__main__ import main

pytestmark = pytest.mark.slow


def measure(tmp_path: Path, part: str, num_tasks: int) -> dict[str, Any]:
    target = tmp_path / "report.json"
    main(["fleet", "--quick", "--part", part, "--tasks", str(num_tasks), "--json", str(target)])
    [case] = json.loads(target.read_text())["cases"]
    assert case["settings"]["tasks"] == num_tasks
    return case


def test_the_overhead_of_real_tasks_is_told_by_where_it_goes(tmp_path: Path) -> None:
    facts = measure(tmp_path, "overhead", 4)["facts"]
    assert facts["worker's seconds a task"].keys() >= {"start-up", "tuning", "after the last publication"}
    assert facts["processor's seconds a task"].keys() == {"driver", "ledger", "workers", "services"}
    assert all(mib > 0 for mib in facts["ledger, MiB at a tenth and at the end"])


def test_a_resumed_run_lists_the_store_once_and_its_workers_never(tmp_path: Path) -> None:
    facts = measure(tmp_path, "resume", 60)["facts"]
    assert facts["store, while planning"]["list"] == facts["store, whole second run"]["list"] == 1
