"""The real runner on a tiny backbone, drawn pictures and a store in a folder."""

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from orchestrator.errors import ExecutionError, StoreError, StoreFull
from orchestrator.planning.spec import TaskSpec
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.ledger.grants import LedgerPolicy, StallLimits
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.worker.data_cache import DataCache
from orchestrator.train.worker.loop import LeaseLost, PublishedTask, run_worker
from orchestrator.train.worker.progress import Progress
from orchestrator.train.worker.task_runner import SearchReporter, TuneTask
from ship.artifact.card import CARD, RECORD, PromptCard
from ship.backbone import Backbone
from ship.data import DataSource, fingerprint_data
from ship.errors import DataError
from ship.settings.config import TuneConfig
from ship.settings.search_config import SearchConfig
from ship.tuning.search import SearchStep
from ship.tuning.tuner import Tuner
from tests.factories import write_stripes
from tests.unit.orchestrator.train.fakes import Clock, CountedObjects
from tests.unit.ship.factory import make_backbone

NUM_EPOCHS = 12
KEY = f"{1:064x}"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 190)):
        (folder / label).mkdir()
        for number in range(10):
            pixels = (random.normal(level, 20, (32, 32, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return DataSource(path=str(folder))


@pytest.fixture
def spec(source: DataSource) -> TaskSpec:
    config = TuneConfig(
        epochs=NUM_EPOCHS, num_independent=2, num_shared=2, num_attribute=2, top_k=4, fallback=False
    )
    return TaskSpec(
        name="shade",
        key=KEY,
        source=source,
        config=config,
        data_fingerprint=fingerprint_data(source),
        num_images=16,
    )


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(open_objects(str(tmp_path / "store")))


class Hooks:
    """Notes the epochs; does something at one of them, or when it is asked about the lease."""

    def __init__(
        self, at_epoch: Mapping[int, Exception] | None = None, on_check: Callable[[], None] = lambda: None
    ) -> None:
        self.at_epoch = at_epoch or {}
        self.on_check = on_check
        self.reports: list[Mapping[str, Any]] = []
        self.steps: list[Mapping[str, Any]] = []
        self.num_started = 0
        self.progress = Progress()
        self.enter, self.doing = self.progress.enter, self.progress.doing

    def epoch(self, report: Mapping[str, Any]) -> None:
        self.reports.append(report)
        if report["epoch"] in self.at_epoch:
            raise self.at_epoch[report["epoch"]]

    def search(self, report: Mapping[str, Any]) -> None:
        self.steps.append(report)

    def started(self) -> None:
        self.num_started += 1

    def check(self) -> None:
        self.on_check()

    @property
    def epochs(self) -> list[int]:
        return [report["epoch"] for report in self.reports]


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


def test_a_published_task_is_done_whatever_happens_to_its_snapshot(
    backbone: Backbone, tmp_path: Path, spec: TaskSpec, caplog: pytest.LogCaptureFixture
) -> None:
    class KeepsSnapshots(LocalObjects):
        def delete(self, key: str) -> None:
            raise StoreError(f"{key}: no answer")

    store = PromptStore(KeepsSnapshots(tmp_path / "store"))
    run = TuneTask(Tuner(backbone), store)
    assert run(spec, Hooks()).created
    assert store.snapshots.load("shade", KEY) is not None
    assert "snapshots/shade" in caplog.text
    assert not run(spec, Hooks()).created, "nor when another worker takes it up again"


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


def test_goes_on_from_the_snapshot_of_a_worker_that_died(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, Hooks({11: LeaseLost()}))
    assert store.snapshots.load("shade", KEY) is not None
    hooks = Hooks()
    outcome = TuneTask(Tuner(backbone), store)(spec, hooks)
    assert hooks.epochs == [11, 12]
    assert outcome.metrics["epochs"] == NUM_EPOCHS
    assert store.snapshots.load("shade", KEY) is None


def test_starts_over_from_a_snapshot_that_is_of_no_use(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    store.snapshots.save("shade", KEY, b"not a snapshot")
    hooks = Hooks()
    TuneTask(Tuner(backbone), store)(spec, hooks)
    assert hooks.epochs[0] == 1
    assert store.snapshots.load("shade", KEY) is None


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


def test_a_snapshot_that_waited_until_the_lease_was_lost_is_not_written(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    def lose_meanwhile() -> None:
        if threading.current_thread().name.startswith("ship-snapshot"):
            raise LeaseLost("shade")

    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, Hooks(on_check=lose_meanwhile))
    assert store.snapshots.load("shade", KEY) is None


class NoSnapshots(LocalObjects):
    """A store that takes everything but snapshots."""

    def __init__(self, root: Path, error: StoreError) -> None:
        super().__init__(root)
        self.error = error

    def put_new(self, key: str, data: bytes) -> bool:
        if key.startswith("snapshots/"):
            raise self.error
        return super().put_new(key, data)


def test_snapshots_that_cannot_be_written_do_not_stop_the_tuning(
    backbone: Backbone, tmp_path: Path, spec: TaskSpec
) -> None:
    store = PromptStore(NoSnapshots(tmp_path, StoreError("read-only")))
    assert TuneTask(Tuner(backbone), store)(spec, Hooks()).created


def test_a_store_that_has_no_room_for_a_snapshot_ends_the_tuning(
    backbone: Backbone, tmp_path: Path, spec: TaskSpec
) -> None:
    store = PromptStore(NoSnapshots(tmp_path, StoreFull("quota reached")))
    with pytest.raises(StoreFull):
        TuneTask(Tuner(backbone), store)(spec, Hooks())
    assert store.published("shade", KEY) is None


def searching(spec: TaskSpec, **axes: Any) -> TaskSpec:
    """The task with a search, in batches so small that half of its epochs are steps enough for a round."""
    return replace(spec, config=replace(spec.config, batch_size=3), search=SearchConfig(**axes))


def test_steps_of_a_search_are_reported(backbone: Backbone, store: PromptStore, spec: TaskSpec) -> None:
    TuneTask(Tuner(backbone), store)(searching(spec, learning_rate=(0.001,)), hooks := Hooks())
    assert [step["epoch"] for step in hooks.steps if step["is_new_round"]] == [0]
    assert (hooks.steps[-1]["round"], hooks.steps[-1]["num_candidates"]) == (1, 2)
    assert hooks.steps[-1]["epoch"] == hooks.steps[-1]["num_epochs"] == 2 * 3 * NUM_EPOCHS // 2


def test_a_long_search_makes_few_reports() -> None:
    hooks = Hooks()
    report = SearchReporter(hooks)
    step = SearchStep(
        round=1, num_rounds=2, num_candidates=8, is_new_round=False, epoch=0, num_epochs=100_000
    )
    for number in range(100_000):
        report(replace(step, epoch=number + 1))
    assert len(hooks.steps) == 100


def test_a_search_comes_first_and_is_not_made_again_after_a_snapshot(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    spec = searching(spec, learning_rate=(0.001,))
    num_checks: list[int] = []
    first = Hooks(at_epoch={11: LeaseLost()}, on_check=lambda: num_checks.append(1))
    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, first)
    # Once the data is loaded, and the round begins; two candidates, three folds, half of the epochs; then
    # one snapshot of the tuning, which is put and written.
    assert len(num_checks) == 2 + 2 * 3 * NUM_EPOCHS // 2 + 2

    again = Hooks()
    outcome = TuneTask(Tuner(backbone), store)(spec, again)

    assert again.epochs == [11, 12]
    card = json.loads(store.fetch(outcome.digest)["prompt.json"])
    assert card["config"]["learning_rate"] in (0.001, 0.02)
    assert card["config"]["epochs"] == NUM_EPOCHS


@pytest.mark.parametrize("thumbnails", [True, False])
def test_pictures_of_mistakes_are_published_unless_the_task_is_secret(
    backbone: Backbone, store: PromptStore, spec: TaskSpec, thumbnails: bool
) -> None:
    spec = replace(spec, config=replace(spec.config, epochs=1), thumbnails=thumbnails)
    held_out = store.fetch_held_out(TuneTask(Tuner(backbone), store)(spec, Hooks()).digest)
    assert held_out is not None
    assert len(held_out) == held_out.num_images > 0
    assert bool(held_out.thumbnails) == thumbnails


def test_the_record_says_what_was_tried(backbone: Backbone, store: PromptStore, spec: TaskSpec) -> None:
    spec = searching(spec, num_independent=(3,))
    spec = replace(spec, config=replace(spec.config, fallback=True))
    files = store.fetch(TuneTask(Tuner(backbone), store)(spec, Hooks()).digest)

    record, card = json.loads(files["record.json"]), json.loads(files["prompt.json"])
    assert [tuple(trial["settings"].values()) for trial in record["search"]] == [
        ("probe", "cls", 2),
        ("ship", "cls", 2),
        ("ship", "cls", 3),
    ]
    assert "standard error" in record["choice"]
    assert record["choice"] in files["README.md"].decode()
    chosen = card["config"]
    assert (chosen["kind"], chosen["num_independent"]) in (("probe", 2), ("ship", 2), ("ship", 3))
    assert (card["metrics"]["epochs"] == 0) == (chosen["kind"] == "probe")


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


def test_a_tuning_that_collapses_is_served_by_its_probe(
    backbone: Backbone, store: PromptStore, spec: TaskSpec, tmp_path: Path
) -> None:
    write_stripes(tmp_path / "stripes", num_train=24, num_test=20)
    source = DataSource(path=str(tmp_path / "stripes"))
    config = TuneConfig(
        kind="lora",
        epochs=6,
        batch_size=8,
        warmup_epochs=1,
        learning_rate=0.1,
        low_rank_rate_scale=10.0,
        fallback=False,
    )
    hooks = Hooks()
    outcome = TuneTask(Tuner(backbone), store)(
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
    assert instead_of["accuracy"] < outcome.metrics["accuracy"]
    assert instead_of["p_worse"] < 0.05
    assert "set warmup_epochs to 10" in instead_of["cause"]
    assert store.snapshots.load("shade", KEY) is None
