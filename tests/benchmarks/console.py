"""The console's fleet page beside MLflow's own list of models: the same registry, both over HTTP, in turn."""

import os
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psutil

from tests.benchmarks.options import json_option, quick_option, rounds_option

if TYPE_CHECKING:
    from tests.benchmarks.harness import Case

__all__ = ["console", "fill_registry"]

_LEGEND = {
    "fleet": "the console's fleet page, 50 tasks of all in order of need, read anew (GET /fleet)",
    "fleet-all": "the same with all tasks on one page (GET /fleet?size=1000)",
    "mlflow-list": "all models by MLflow's REST API, 1,000 at a time (registered-models/search)",
    "mlflow-page": "the first 25 models by the same, as MLflow's page shows them",
}


@click.command()
@click.option("--tasks", type=click.IntRange(2), help="Number of tasks [1,000].")
@click.option("--versions", type=click.IntRange(1), default=10, show_default=True, help="Versions of each.")
@rounds_option
@quick_option
@json_option
def console(tasks: int | None, versions: int, rounds: int | None, quick: bool, target: str | None) -> None:
    """The fleet page of the console beside MLflow's own list of models, paired.

    \b
    Examples:
      python -m tests.benchmarks console
      python -m tests.benchmarks console --tasks 100 --rounds 3 --json console.json
    """
    from tests.benchmarks.harness import open_report

    number = tasks or (20 if quick else 1000)
    with open_report("console", _LEGEND, target) as report, tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        fill_registry(home, number, versions)
        with _mlflow_server(home) as mlflow, _console(home) as pages:
            report.add(_measure(mlflow, pages, number, versions, rounds or (2 if quick else 9)))


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A server of this machine.

    Attributes:
        url: Its URL.
        pid: Its process, which may have others below it.
    """

    url: str
    pid: int

    def cpu_s(self) -> float:
        """CPU time that it has taken so far."""
        first = psutil.Process(self.pid)
        times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
        return sum(one.user + one.system for one in times)


def fill_registry(home: Path, num_tasks: int, num_versions: int) -> None:
    """An MLflow in a file with so many tasks, of which all but each ninth have a champion; and their catalog.

    One task is registered by the registry itself; the rows of the others are made of its own.

    Args:
        home: Home folder, where ``mlflow.db`` and the store go.
        num_tasks: Number of tasks.
        num_versions: Versions of each; the last but one is the champion.
    """
    from orchestrator.registry.registry import Registry
    from orchestrator.settings import Settings

    settings = Settings.from_env({}, home=str(home))
    home.mkdir(exist_ok=True)
    registry = Registry(settings.tracking_uri, settings.artifact_location, may_create=True)
    metrics = {"accuracy": 0.9, "accuracy_low": 0.86, "accuracy_high": 0.93, "probe_accuracy": 0.85}
    source = f"{settings.store}/prompts/model"
    for version in range(1, num_versions + 1):
        registry.register(
            "model", digest=f"{version:064x}", source=source, run_id=None, metrics=metrics, tags={}
        )
    with closing(sqlite3.connect(home / "mlflow.db")) as file, file:
        for number in range(num_tasks):
            _add_copy(file, f"ship.task-{number:04}", number, num_versions)
        for table in ("model_version_tags", "registered_model_tags", "model_versions", "registered_models"):
            file.execute(f"DELETE FROM {table} WHERE name = 'ship.model'")


def _add_copy(file: sqlite3.Connection, name: str, number: int, num_versions: int) -> None:
    drawn = random.Random(number)
    accuracy = drawn.uniform(0.6, 0.99)
    metrics = (
        f'{{"accuracy": {accuracy}, "accuracy_low": {accuracy - 0.04}, "accuracy_high": {accuracy + 0.03}, '
        f'"num_test": {20 if number % 7 == 3 else 200}, "probe_accuracy": 0.85}}'
    )
    for table in ("registered_models", "model_versions", "registered_model_tags", "model_version_tags"):
        columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
        kept = ", ".join(column for column in columns if column != "name")
        file.execute(
            f"INSERT INTO {table} (name, {kept}) SELECT ?, {kept} FROM {table} WHERE name = 'ship.model'",
            (name,),
        )
    file.execute(
        "UPDATE model_version_tags SET value = ? WHERE name = ? AND key = 'ship.metrics'", (metrics, name)
    )
    tags = {"plant": ("ulm", "brno", "porto", "gent")[number % 4], "line": str(1 + number // 4 % 12)}
    file.executemany(
        "INSERT INTO registered_model_tags (name, key, value, workspace) VALUES (?, ?, ?, 'default')",
        [(name, key, value) for key, value in tags.items()],
    )
    served = {"challenger": num_versions} | ({"champion": max(1, num_versions - 1)} if number % 9 else {})
    file.executemany(
        "INSERT INTO registered_model_aliases (name, alias, version, workspace) VALUES (?, ?, ?, 'default')",
        [(name, alias, version) for alias, version in served.items()],
    )


def _measure(mlflow: _Server, pages: _Server, num_tasks: int, num_versions: int, rounds: int) -> "Case":
    import httpx

    from orchestrator.console.services import TASKS_AGE_S
    from tests.benchmarks.harness import Case, paired_ratio

    with httpx.Client(timeout=120.0, trust_env=False) as client:

        def list_models(size: int, *, whole: bool) -> int:
            token, found = "", 0
            while True:
                query = {"max_results": size} | ({"page_token": token} if token else {})
                url = f"{mlflow.url}/api/2.0/mlflow/registered-models/search"
                reply = client.get(url, params=query).raise_for_status().json()
                found += len(reply["registered_models"])
                token = reply.get("next_page_token", "")
                if not (whole and token):
                    return found

        rows = {
            "fleet": lambda: client.get(f"{pages.url}/fleet").raise_for_status(),
            "mlflow-list": lambda: list_models(1000, whole=True),
            "fleet-all": lambda: client.get(f"{pages.url}/fleet?size=1000").raise_for_status(),
            "mlflow-page": lambda: list_models(25, whole=False),
        }
        assert list_models(1000, whole=True) == num_tasks
        assert f"{num_tasks} of {num_tasks} tasks" in rows["fleet"]().text
        taken: dict[str, list[float]] = {name: [] for name in rows}
        cpu_s: dict[str, list[float]] = {name: [] for name in rows}
        for number in range(-1, rounds):
            for name, row in rows.items():
                # What a reload within seconds is spared is measured, too.
                server = pages if name.startswith("fleet") else mlflow
                time.sleep(TASKS_AGE_S if server is pages else 0.0)
                start_s, start_cpu_s = time.perf_counter(), server.cpu_s()
                row()
                if number >= 0:
                    taken[name].append(time.perf_counter() - start_s)
                    cpu_s[name].append(server.cpu_s() - start_cpu_s)
    pairs: list[tuple[str, str, float | None]] = [
        ("fleet", "mlflow-list", 1.0),
        ("fleet-all", "mlflow-list", None),
        ("fleet", "mlflow-page", None),
    ]
    return Case(
        settings={"tasks": num_tasks, "versions": num_versions},
        rounds=rounds,
        seconds={name: statistics.median(values) for name, values in taken.items()},
        facts={f"cpu s {name}": round(statistics.median(values), 3) for name, values in cpu_s.items()},
        ratios=[paired_ratio(of, against, taken[against], taken[of], goal) for of, against, goal in pairs],
    )


@contextmanager
def _mlflow_server(home: Path) -> Iterator[_Server]:
    """MLflow's own server on the registry, with one worker."""
    from orchestrator.registry.page import page_command, running_page
    from orchestrator.registry.registry import Registry
    from orchestrator.settings import Settings

    settings, port = Settings.from_env({}, home=str(home)), _free_port()
    session = Registry(settings.tracking_uri).session
    command, environment = page_command(session, settings.artifact_location, "127.0.0.1", port)
    url = f"http://127.0.0.1:{port}"
    with running_page(command, environment, f"{url}/health", start_s=300.0) as process:
        yield _Server(url=url, pid=process.pid)


@contextmanager
def _console(home: Path) -> Iterator[_Server]:
    """`ship console` of a home."""
    port = _free_port()
    program = "from orchestrator.cli.main import main; main()"
    words = ["--home", str(home), "console", "--no-auth", "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert "Console at" in said, said
            yield _Server(url=f"http://127.0.0.1:{port}", pid=process.pid)
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
