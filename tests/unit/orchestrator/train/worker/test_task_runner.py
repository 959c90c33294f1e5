"""The real runner on a tiny backbone, drawn pictures and a store in a folder."""

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.errors import ExecutionError
from orchestrator.planning.spec import TaskSpec
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.ledger.grants import LedgerPolicy, StallLimits
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.worker.data_cache import DataCache
from orchestrator.train.worker.loop import LeaseLost, PublishedTask, run_worker
from orchestrator.train.worker.task_runner import TuneTask
from ship.artifact.card import CARD, RECORD, PromptCard
from ship.backbone import Backbone
from ship.data import DataSource, fingerprint_data
from ship.errors import DataError
from ship.settings.config import TuneConfig
from ship.tuning.member import PackTask, TuneResult
from ship.tuning.tuner import Tuner
from tests.factories import write_stripes
from tests.unit.orchestrator.train.fakes import Clock, CountedObjects
from tests.unit.orchestrator.train.worker.factory import KEY, NUM_EPOCHS, Hooks


def test_publishes_once_and_then_finds_it_published(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    run, hooks = TuneTask(Tuner(backbone), store), Hooks()
    outcome = run(spec, hooks)
    assert hooks.epochs == list(range(1, NUM_EPOCHS + 1))
    assert hooks.num_started == 1
    assert set(hooks.reports[0]) == {
        *("epoch", "num_epochs", "loss", "matching_loss", "train_accuracy", "val_accuracy", "val_loss", "lr")
    }
    assert json.dumps(hooks.reports[0])
    assert outcome.created
    assert outcome.metrics["epochs"] == NUM_EPOCHS
    publication = store.published("shade", KEY)
    assert publication is not None
    assert (publication.digest, publication.uri) == (outcome.digest, outcome.uri)
    assert store.snapshots.load("shade", KEY) is None

    again = Hooks()
    repeated = run(spec, again)
    assert again.epochs == []
    assert not repeated.created
    assert (repeated.digest, repeated.metrics) == (outcome.digest, outcome.metrics)


def test_a_task_costs_twenty_one_requests_of_the_store(
    backbone: Backbone, tmp_path: Path, spec: TaskSpec
) -> None:
    objects = CountedObjects(LocalObjects(tmp_path / "store"))
    store = PromptStore(objects)
    TuneTask(Tuner(backbone), store)(replace(spec, config=replace(spec.config, epochs=3)), Hooks())
    assert objects.requests == {
        # Is it published (asked twice), is there a snapshot; five files and the marker read back.
        "get": 2 + 1 + 5 + 1,
        "put_new": 5 + 1,
        # Did garbage collection take a file meanwhile?
        "exists": 5,
        "delete": 1,
    }


def test_of_two_workers_the_later_reports_what_the_first_published(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    def publish_meanwhile() -> None:
        if len(hooks.reports) == NUM_EPOCHS and store.published("shade", KEY) is None:
            other = replace(spec, config=replace(spec.config, seed=1))
            earlier.append(TuneTask(Tuner(backbone), store)(other, Hooks()))

    earlier: list[PublishedTask] = []
    hooks = Hooks(on_check=publish_meanwhile)
    outcome = TuneTask(Tuner(backbone), store)(spec, hooks)
    assert outcome == replace(earlier[0], created=False)


def test_a_lease_lost_before_publishing_publishes_nothing(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    def lose_at_the_end() -> None:
        if len(hooks.reports) == NUM_EPOCHS:
            raise LeaseLost

    hooks = Hooks(on_check=lose_at_the_end)
    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, hooks)
    assert store.published("shade", KEY) is None


@pytest.mark.parametrize("thumbnails", [True, False])
def test_pictures_of_mistakes_are_published_unless_the_task_is_secret(
    backbone: Backbone, store: PromptStore, spec: TaskSpec, thumbnails: bool
) -> None:
    spec = replace(spec, config=replace(spec.config, epochs=1), thumbnails=thumbnails)
    held_out = store.fetch_held_out(TuneTask(Tuner(backbone), store)(spec, Hooks()).digest)
    assert held_out is not None
    assert len(held_out) == held_out.num_images > 0
    assert bool(held_out.thumbnails) == thumbnails


def test_validation_images_are_trained_on_once_they_have_chosen(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    source = replace(spec.source, val_fraction=0.2)
    spec = replace(spec, source=source, data_fingerprint=fingerprint_data(source))
    first = TuneTask(Tuner(backbone), store)(spec, Hooks())
    patient = replace(spec, key=f"{7:064x}", config=replace(spec.config, patience=50))
    second = TuneTask(Tuner(backbone), store)(patient, Hooks())

    assert [outcome.metrics["num_train"] for outcome in (first, second)] == [16, 12]
    assert [outcome.metrics["num_test"] for outcome in (first, second)] == [4, 4]


def test_data_that_changed_after_the_plan_is_refused(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    other = TaskSpec(**{**vars(spec), "data_fingerprint": "0" * 64})
    with pytest.raises(DataError, match="changed after the tasks were planned"):
        TuneTask(Tuner(backbone), store)(other, Hooks())


def test_a_second_task_of_the_same_data_does_not_read_it_again(
    backbone: Backbone, store: PromptStore, spec: TaskSpec, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(spec.source.path, copy)
    source = DataSource(path=str(copy))
    spec = replace(spec, source=source, data_fingerprint=fingerprint_data(source))
    cache = DataCache(tmp_path / "cache", 1 << 30)
    TuneTask(Tuner(backbone), store, cache)(spec, Hooks())
    shutil.rmtree(copy)
    other = replace(spec, name="again", key=f"{2:064x}")
    assert TuneTask(Tuner(backbone), store, cache)(other, Hooks()).created


class _HangingFiles(MemoryFileSystem):
    """Files in memory; a read of one of them waits, as one of a dead NFS server does."""

    protocol = "hanging"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    is_back = threading.Event()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("hanging://", "memory://")))

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        # What an object store tells of a file, so that it is not read to be told from another.
        return {**super().info(path, **kwargs), "ETag": "1"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if path.endswith("hangs.png"):
            self.is_back.wait()
        return bytes(super().cat_file(path, start, end, **kwargs))


def test_a_read_that_hangs_ends_its_worker_which_names_the_file(
    backbone: Backbone, store: PromptStore, spec: TaskSpec, source: DataSource
) -> None:
    fsspec.register_implementation("hanging", _HangingFiles, clobber=True)
    files = _HangingFiles()
    root = Path(source.path)
    for path in root.rglob("*.png"):
        files.pipe_file(f"/data/{path.relative_to(root)}", path.read_bytes())
    files.pipe_file("/data/dark/hangs.png", b"")
    spec = replace(spec, source=DataSource(path="hanging://data"))
    # Twenty pictures are read within the second: each is progress.
    policy = LedgerPolicy(lease_s=1.0, stall=StallLimits(data_s=1.0))
    ledger = Ledger([spec], policy, Clock())
    try:
        with pytest.raises(ExecutionError, match="made no progress"):
            run_worker(ledger, TuneTask(Tuner(backbone), store), worker="w")
    finally:
        _HangingFiles.is_back.set()
    [seen] = ledger.status().tasks
    assert (seen.state, seen.failures) == ("pending", 1)
    assert seen.cause == "no progress for 1 s while reading its data (hanging:///data/dark/hangs.png)"


def test_whatever_a_tuner_computes_is_seen_as_progress(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    tuner, hooks = Tuner(backbone), Hooks()
    TuneTask(tuner, store)(spec, hooks)
    # A step an epoch, and beside them features, the evaluation, and what the artifact is made from.
    assert tuner.num_passes > NUM_EPOCHS + 3
    assert hooks.progress.phase == "store"


class CollapsingTuner(Tuner):
    """A tuner whose prompts are wrong about every image in the end; real rates collapse by chance alone."""

    def tune(
        self, tasks: Sequence[PackTask], *, on_joined: Callable[[], None] = lambda: None
    ) -> list[TuneResult | Exception]:
        return [self._collapsed(outcome) for outcome in super().tune(tasks, on_joined=on_joined)]

    def _collapsed(self, outcome: TuneResult | Exception) -> TuneResult | Exception:
        if isinstance(outcome, Exception) or outcome.prompt.config.kind == "probe":
            return outcome
        wrong = "0" * len(outcome.evaluation.right)
        return replace(
            outcome,
            evaluation=replace(outcome.evaluation, right=wrong, accuracy=0.0),
            history=[*outcome.history[:-1], replace(outcome.history[-1], train_accuracy=0.3)],
        )


def test_a_tuning_that_collapses_is_served_by_its_probe(
    backbone: Backbone, store: PromptStore, spec: TaskSpec, tmp_path: Path
) -> None:
    write_stripes(tmp_path / "stripes", num_train=24, num_test=20)
    source = DataSource(path=str(tmp_path / "stripes"))
    config = TuneConfig(kind="lora", epochs=6, batch_size=8, warmup_epochs=1, fallback=False)
    hooks = Hooks()
    outcome = TuneTask(CollapsingTuner(backbone), store)(
        replace(spec, source=source, config=config, data_fingerprint=fingerprint_data(source)), hooks
    )
    assert hooks.epochs == list(range(1, 7)), "the probe reports no epoch of its own"
    files = store.fetch(outcome.digest)
    assert PromptCard.from_json(files[CARD]).config.kind == "probe"
    assert outcome.metrics["accuracy"] == outcome.metrics["probe_accuracy"] > 0.8
    published = store.published("shade", KEY)
    assert published is not None
    assert published.digest == outcome.digest
    instead_of = json.loads(files[RECORD])["instead_of"]
    assert instead_of["accuracy"] == 0.0
    assert instead_of["p_worse"] < 0.05
    assert "set warmup_epochs to 10" in instead_of["cause"]
    assert store.snapshots.load("shade", KEY) is None
