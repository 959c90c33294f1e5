"""A password in any URL that can be configured is in no file and no output; a home is its owner's alone."""

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.errors import StoreError
from orchestrator.manifest.request import Request
from orchestrator.planning.spec import TaskSpec
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.executor import Callbacks, RunOptions, RunSummary
from orchestrator.train.job import Job, Services, prepare_job
from orchestrator.train.job_report import JobReport
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.worker.task_runner import TuneTask
from ship.backbone import Backbone
from ship.tuning.tuner import Tuner
from tests.console import run_ship
from tests.factories import write_backbone, write_stripes
from tests.unit.orchestrator.train.fakes import work

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)

PASSWORD = "Zq7@cr:t+5"
ENCODED = quote(PASSWORD, safe="")
# Whole, and the parts that are left if a library ends the password at its @ or colon.
NEEDLES = tuple(needle.encode() for needle in ("Zq7", "cr:t", ENCODED, quote("cr:t+5", safe="")))
NOWHERE = "127.0.0.1:9"
DATA = f"memory://reader:{PASSWORD}@plant"
STORE = f"vault://writer:{PASSWORD}@store/ship"
MANIFEST = f"""
backbone: ./backbone
defaults: {{epochs: 2, num_independent: 3, num_attribute: 4, top_k: 4, fallback: false}}
tasks:
- {{name: plain, data: "{DATA}/welds"}}
- {{name: chained, data: "simplecache::{DATA}/welds"}}
- {{name: table, data: {{path: "{DATA}/welds.csv", image_root: "{DATA}/welds"}}}}
- {{name: broken, data: "{DATA}/broken"}}
- {{name: gone, data: "{DATA}/gone"}}
- {{name: signed, data: "https://reader:{ENCODED}@{NOWHERE}/w.csv?X-Amz-Signature={ENCODED}&token={ENCODED}"}}
- {{name: elsewhere, data: {{path: "{DATA}/welds.csv", image_root: "{DATA}/other"}}}}
"""


class Vault(MemoryFileSystem):
    """A driver in memory whose URLs have a user and a password."""

    protocol = "vault"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = MemoryFileSystem._strip_protocol(path.removeprefix("vault://").rpartition("@")[2])
        return stripped


fsspec.register_implementation("vault", Vault, clobber=True)


@dataclass
class Plant:
    """A folder with a manifest, data behind URLs with passwords, and the jobs of it."""

    folder: Path
    settings: Settings

    def prepare(self) -> Job:
        return prepare_job(
            str(self.folder / "lines.yaml"),
            lambda store: self.settings,
            request=Request(keep_going=True),
            open_services=self._open_services,
        )

    def tune(self) -> JobReport:
        return self.prepare().run()

    def _open_services(self, settings: Settings) -> Services:
        return replace(Services.open(settings), run_tasks=tune_here)


def tune_here(
    specs: Sequence[TaskSpec],
    backbone: Backbone,
    settings: Settings,
    options: RunOptions,
    callbacks: Callbacks,
) -> RunSummary:
    """Tune in this process, as a worker does."""
    ledger = Ledger(specs, LedgerPolicy(), clock=lambda: 5.0)
    work(ledger, TuneTask(Tuner(backbone), PromptStore(open_objects(settings.store))))
    callbacks.on_events(ledger.read(0)[0])
    callbacks.on_progress(ledger.status())
    return RunSummary(tasks=ledger.status().tasks)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    before = os.umask(0)
    memory = fsspec.filesystem("memory")
    try:
        write_backbone(tmp_path / "backbone")
        write_stripes(tmp_path / "welds")
        root = memory._strip_protocol(DATA)
        for name in ("welds", "broken"):
            memory.put(str(tmp_path / "welds"), f"{root}/{name}", recursive=True)
        picture = next(path for path in memory.find(f"{root}/broken") if "train" in path)
        memory.pipe_file(picture, memory.cat_file(picture)[:60])
        images = [path.removeprefix(f"{root}/welds/") for path in memory.find(f"{root}/welds")]
        rows = [f"{path},{path.split('/')[1]},{path.split('/')[0]}" for path in images]
        memory.pipe_file(f"{root}/welds.csv", "\n".join(["path,label,split", *rows]).encode())
        (tmp_path / "lines.yaml").write_text(MANIFEST)
        # As a user's folder is.
        (tmp_path / "home").mkdir(mode=0o755)
        variables = {"SHIP_HOME": str(tmp_path / "home"), "SHIP_STORE": STORE}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.chdir(tmp_path)
        yield Plant(tmp_path, Settings.from_env(variables))
    finally:
        os.umask(before)
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


def found_in(content: bytes, where: str) -> list[str]:
    lines = [line for line in content.splitlines() if any(needle in line for needle in NEEDLES)]
    return [f"{where}: {line.decode(errors='replace')[:300]}" for line in lines]


def leaks(plant: Plant) -> list[str]:
    """Where the password is, in files at home and in the store."""
    stored = fsspec.filesystem("vault")
    root = stored._strip_protocol(STORE)
    found = [leak for path in stored.find(root) for leak in found_in(stored.cat_file(path), path)]
    for path in plant.settings.home.rglob("*"):
        if path.is_file():
            found += found_in(path.read_bytes(), str(path))
    return found


def open_to_others(home: Path) -> list[str]:
    """Files and folders that another user could read, write or enter."""
    places = [home, *home.rglob("*")]
    return [
        f"{place} {place.stat().st_mode:o}" for place in places if stat.S_IMODE(place.stat().st_mode) & 0o077
    ]


def test_a_password_of_any_url_reaches_no_file_and_no_output(
    plant: Plant,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    report = plant.tune()
    assert set(report.summary.done) == {"chained", "plain", "table"}
    assert list(report.summary.failed) == ["broken"]
    assert {task.name for task in report.refused} == {"gone", "signed", "elsewhere"}
    said = [*report.summary.failed.values(), *(reason for task in report.refused for reason in task.reasons)]
    # What the user has to know is told all the same.
    assert "@plant/broken/train" in report.summary.failed["broken"]
    assert any(f"https://{NOWHERE}/w.csv" in reason for reason in said), "\n".join(said)
    with closing(sqlite3.connect(plant.settings.home / "mlflow.db")) as database:
        params = dict(database.execute("select value, key from params where key = 'data'"))
    assert {"memory://plant/welds", "simplecache::memory://plant/welds"} <= set(params)

    for command in (
        ("plan", "lines.yaml", "--keep-going"),
        ("plan", "lines.yaml", "--keep-going", "--json"),
        ("plan", "lines.yaml"),
        ("check", "lines.yaml"),
        ("ls",),
        ("show", "plain"),
        ("show", "plain", "--json"),
        ("status",),
        ("logs", "broken"),
        ("gc",),
        ("serve", "--backbone", "backbone"),
        ("predict", "plain", "lines.yaml", "--url", f"http://reader:{ENCODED}@{NOWHERE}/?token={ENCODED}"),
    ):
        run_ship(monkeypatch, *command)
    output = capsys.readouterr()
    heard = "\n".join([output.out, output.err, caplog.text, repr(plant.settings), *said])
    assert found_in(heard.encode(), "output") == []
    assert leaks(plant) == []
    assert open_to_others(plant.settings.home) == []


@pytest.mark.parametrize("url", [f"{STORE}?password={ENCODED}", STORE.replace("vault", "memory")])
def test_a_store_that_is_refused_shows_no_password(url: str) -> None:
    """One with a query, and one whose driver would take the password for a part of the path."""
    with pytest.raises(StoreError, match="://store/ship") as refused:
        open_objects(url)
    assert found_in(str(refused.value).encode(), "message") == []


@pytest.mark.parametrize(
    "uri",
    [
        f"http://writer:{ENCODED}@{NOWHERE}",
        f"postgresql://writer:{PASSWORD}@{NOWHERE}/mlflow?password={ENCODED}",
    ],
)
def test_a_password_of_an_mlflow_that_is_down_reaches_neither_spool_nor_output(
    plant: Plant,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    uri: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    plant.settings = replace(plant.settings, tracking_uri=uri)
    assert plant.tune().backlog.num_records > 0
    assert list((plant.settings.home / "spool").glob("*.jsonl"))
    for command in (("ls",), ("show", "plain"), ("promote", "plain", "1"), ("serve", "--no-auth")):
        assert run_ship(monkeypatch, *command) != 0
    output = capsys.readouterr()
    heard = "\n".join([output.out, output.err, caplog.text, repr(plant.settings)])
    assert found_in(heard.encode(), "output") == []
    assert leaks(plant) == []
    assert open_to_others(plant.settings.home) == []
