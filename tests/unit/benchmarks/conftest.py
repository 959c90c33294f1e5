"""A benchmark run by its command in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.__main__ import main


@pytest.fixture
def run_benchmark(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs a benchmark with ``--quick``; returns what it wrote as JSON."""

    def run(*arguments: str) -> dict[str, Any]:
        target = tmp_path / "report.json"
        main([*arguments, "--quick", "--json", str(target)], standalone=False)
        found: dict[str, Any] = json.loads(target.read_text())
        return found

    return run
