"""Runs the benchmarks of the source checkout that ship was installed from; an installed wheel has none."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import ship
from orchestrator.errors import OrchestratorError

__all__ = ["run_benchmark"]


def run_benchmark(arguments: Sequence[str]) -> None:
    """Hand the command line on.

    Raises:
        OrchestratorError: There is no checkout.
    """
    root = Path(ship.__file__).resolve().parents[1]
    if not (root / "tests" / "benchmarks" / "__main__.py").exists():
        raise OrchestratorError(
            f"the benchmarks are not installed with ship: {root / 'tests' / 'benchmarks'} does not exist; "
            "clone the repository, install it with `pip install -e '.[dev]'` and run `ship bench` again"
        )
    sys.path.insert(0, str(root))
    importlib.import_module("tests.benchmarks.__main__").main(list(arguments))
