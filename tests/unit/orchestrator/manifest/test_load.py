import hashlib
import pickle
from pathlib import Path

import fsspec
import pytest

from orchestrator.manifest.load import load_manifest
from orchestrator.manifest.model import Manifest, PoolSettings, TaskEntry
from ship.data import DataSource
from ship.settings.config import TuneConfig
from ship.settings.search_config import SearchConfig
from tests.unit.orchestrator.manifest.factory import load, problems_of


def test_everything_that_can_be_said(folder: Path) -> None:
    manifest = load(
        folder,
        """
        version: 1
        backbone: ./models/vit.safetensors
        store: s3://bucket/prefix
        workers: 2
        defaults: {epochs: 30, learning_rate: 5e-3, threshold: auto}
        tasks:
          - name: bottle-caps
            data: ./data/caps
            tags: {site: ulm, line: 3, urgent: true}
            config: {num_independent: 5, epochs: 40}
          - name: bolts
            data: {path: data/bolts, format: imagefolder, test_fraction: 0.5}
        """,
    )
    assert manifest == Manifest(
        backbone=str(folder / "models" / "vit.safetensors"),
        store="s3://bucket/prefix",
        pool=PoolSettings(max_workers=2),
        tasks=(
            TaskEntry(
                name="bottle-caps",
                source=DataSource(path=str(folder / "data" / "caps")),
                config=TuneConfig(epochs=40, learning_rate=0.005, num_independent=5),
                tags={"site": "ulm", "line": "3", "urgent": "true"},
            ),
            TaskEntry(
                name="bolts",
                source=DataSource(
                    path=str(folder / "data" / "bolts"), format="imagefolder", test_fraction=0.5
                ),
                config=TuneConfig(epochs=30, learning_rate=0.005),
            ),
        ),
        digest=manifest.digest,
    )
    assert pickle.loads(pickle.dumps(manifest)) == manifest


def test_the_digest_is_that_of_the_file(folder: Path) -> None:
    text = "tasks: [{name: a, data: data/caps}]\n"
    assert load(folder, text).digest == hashlib.sha256(text.encode()).hexdigest()


def test_presets_and_searches(folder: Path) -> None:
    manifest = load(
        folder,
        """
        preset: balanced
        defaults: {epochs: 30}
        search: {learning_rate: [5e-3, 2e-2], threshold: [auto, 0.97]}
        tasks:
          - {name: a, data: data/caps}
          - {name: b, data: data/caps, preset: best, search: {weight_decay: [0.01], num_candidates: 4}}
          - {name: c, data: data/caps, search: false, config: {num_independent: 3}}
        tasks_from: data/b*
        """,
    )

    shared = SearchConfig(learning_rate=(0.005, 0.02), threshold=("auto", 0.97))
    assert {task.name: (task.preset, task.search, task.pinned) for task in manifest.tasks} == {
        "a": ("balanced", shared, {"epochs"}),
        "b": ("best", SearchConfig(weight_decay=(0.01,), num_candidates=4), {"epochs"}),
        "c": ("balanced", SearchConfig(), {"epochs", "num_independent"}),
        "bolts": ("balanced", shared, {"epochs"}),
    }


def test_auto_leaves_a_setting_to_validation(folder: Path) -> None:
    manifest = load(
        folder,
        """
        preset: balanced
        defaults: {kind: auto, head: layers, epochs: 30}
        tasks:
          - {name: a, data: data/caps}
          - {name: b, data: data/caps, config: {kind: lora, head: auto, augment: auto}}
        """,
    )

    first, second = manifest.tasks
    assert (first.auto, first.pinned) == ({"kind"}, {"head", "epochs"})
    assert (first.config.kind, first.config.head) == ("ship", "layers")
    assert (second.auto, second.pinned) == ({"head", "augment"}, {"kind", "epochs"})
    assert (second.config.kind, second.config.head) == ("lora", "cls")
    assert problems_of(
        folder, "tasks:\n- {name: a, data: data/caps, config: {balance: all, rank: auto}}\n"
    ) == [
        "tasks[0].config.rank (line 2): expected a whole number from 1 to 256, got 'auto'",
        "tasks[0].config.balance (line 2): expected `auto`, `none`, `weights` or `prior`, got 'all'",
    ]


def test_least_that_must_be_said(folder: Path) -> None:
    manifest = load(folder, "tasks:\n- {name: caps, data: data/caps, tags: , config: }\nstore:\n")

    assert (manifest.backbone, manifest.store, manifest.pool) == ("bundled", None, PoolSettings())
    assert manifest.tasks[0].config == TuneConfig()


@pytest.mark.parametrize(
    "spec", ["bundled", "vit_base_patch16_224.augreg_in21k", "hf-hub:owner/name", "/a/b.pth"]
)
def test_backbones_that_are_no_relative_path(folder: Path, spec: str) -> None:
    assert load(folder, f"backbone: {spec}\ntasks: [{{name: a, data: data/caps}}]").backbone == spec


def test_tasks_from_folders(folder: Path) -> None:
    (folder / "data" / ".cache").mkdir()
    (folder / "data" / "notes.txt").write_text("x")
    manifest = load(
        folder, "tasks: [{name: extra, data: data/caps}]\ntasks_from: ./data/*\ndefaults: {epochs: 7}"
    )

    assert [task.name for task in manifest.tasks] == ["extra", "bolts", "caps", "gears"]
    assert manifest.tasks[1].source.path == str(folder / "data" / "bolts")
    assert manifest.tasks[1].config.epochs == 7


def test_relative_to_the_manifest_and_not_to_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "manifest.yaml").write_text("tasks: [{name: a, data: data/caps}]\nstore: ../prompts")
    monkeypatch.chdir(folder / "data")

    manifest = load_manifest("../manifest.yaml")
    assert manifest.tasks[0].source.path == str(folder / "data" / "caps")
    assert manifest.store == str(folder.parent / "prompts")


def test_remote_manifest() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/plans/manifest.yaml", b"tasks: [{name: a, data: ./a}]\ntasks_from: ./b*\n")
    memory.pipe_file("/plans/a/x/0.png", b"")
    memory.pipe_file("/plans/b1/x/0.png", b"")
    try:
        manifest = load_manifest("memory://plans/manifest.yaml")
        assert [task.source.path for task in manifest.tasks] == ["memory://plans/a", "memory:///plans/b1"]
    finally:
        memory.rm("/plans", recursive=True)


def test_thousands_of_tasks(folder: Path) -> None:
    rows = "".join(
        f"- {{name: t{number}, data: data/caps, config: {{epochs: 3}}}}\n" for number in range(2000)
    )

    assert len(load(folder, f"tasks:\n{rows}").tasks) == 2000
