"""What a process of the endpoint loads: torch is the engine's, MLflow the poller's at its first look."""

import subprocess
import sys

import pytest

# Ray Serve itself brings in pandas and pyarrow where they are installed.
HEAVY = ("torch", "timm", "mlflow", "sqlalchemy", "safetensors", "scipy")
PROGRAM = f"import sys, {{}}; print(*[name for name in {HEAVY} if name in sys.modules])"


@pytest.mark.parametrize(
    "module",
    [
        "orchestrator.serve.ingress.deployment",
        "orchestrator.serve.ingress.app",
        "orchestrator.serve.launch.app",
        "orchestrator.serve.launch.endpoint",
        "orchestrator.serve.poller",
        "orchestrator.cli.serve",
    ],
)
def test_it_loads_neither_torch_nor_mlflow(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_what_builds_the_application_needs_neither() -> None:
    program = PROGRAM.format("orchestrator.serve.launch.app as app").replace("; print", "; app.app; print")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
