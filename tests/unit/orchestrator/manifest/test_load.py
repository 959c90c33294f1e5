import hashlib
import pickle
from pathlib import Path

import fsspec
import pytest

from orchestrator.errors import ManifestError
from orchestrator.manifest.load import MAX_MANIFEST_BYTES, load_manifest
from orchestrator.manifest.model import Manifest, PoolSettings, TaskEntry
from ship.data import DataSource
from ship.settings.config import TuneConfig
from ship.settings.search_config import SearchConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("caps", "bolts", "gears"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path


def load(folder: Path, text: str) -> Manifest:
    path = folder / "manifest.yaml"
    path.write_text(text, encoding="utf-8")
    return load_manifest(str(path))


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(folder, text)
    return list(caught.value.problems)


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


def test_settings_of_data_for_all_tasks(folder: Path) -> None:
    for name in ("welds.csv", "seams.PARQUET", "list.txt"):
        (folder / "data" / name).write_text("path,label\n")
    (folder / "pictures").mkdir()
    manifest = load(
        folder,
        """
        defaults: {data: {image_root: pictures, test_fraction: 0.3, split_seed: 7}}
        tasks:
          - {name: welds, data: data/welds.csv}
          - {name: seams, data: {path: data/seams.PARQUET, split_seed: 3}}
          - {name: listed, data: {path: data/list.txt, format: csv, image_root: data/gears}}
          - {name: caps, data: data/caps}
        tasks_from: data/b*
        """,
    )
    root = str(folder / "pictures")
    shared = {"test_fraction": 0.3, "split_seed": 7}
    own = {"path": "list.txt", "format": "csv", "image_root": str(folder / "data" / "gears"), **shared}
    assert [task.source.to_dict() for task in manifest.tasks] == [
        DataSource(**{**values, "path": str(folder / "data" / values["path"])}).to_dict()
        for values in (
            {"path": "welds.csv", "image_root": root, **shared},
            {"path": "seams.PARQUET", "image_root": root, **shared, "split_seed": 3},
            own,
            # Folders of images have no image_root.
            {"path": "caps", **shared},
            {"path": "bolts", **shared},
        )
    ]


def test_wrong_settings_of_data_are_told_once_and_not_for_each_task(folder: Path) -> None:
    tasks = "".join(f"  - {{name: t{number}, data: data/caps}}\n" for number in range(5))
    wrong = "defaults: {data: {path: data, test_fraction: 2, image_rot: x}}\n"
    assert problems_of(folder, f"{wrong}tasks:\n{tasks}") == [
        "defaults.data.path (line 1): unknown key; known are format, val_fraction, test_fraction, "
        "split_seed, group, allow_duplicates, image_root",
        "defaults.data.image_rot (line 1): unknown key; did you mean 'image_root'?",
        "defaults.data.test_fraction (line 1): expected a number from 0 to below 1, got 2",
    ]
    assert problems_of(folder, f"defaults: {{data: pictures}}\ntasks:\n{tasks}") == [
        "defaults.data (line 1): expected a mapping, got 'pictures'"
    ]


def test_defaults_and_own_settings_of_data_that_do_not_go_together_are_a_problem_of_the_task(
    folder: Path,
) -> None:
    text = "defaults: {data: {test_fraction: 0.6}}\ntasks:\n"
    text += "  - {name: a, data: {path: data/caps, val_fraction: 0.5}}\n"
    [problem] = problems_of(folder, text)
    assert problem.startswith("tasks[0].data (line 3): val_fraction + test_fraction: expected less than 1")


def test_a_folder_of_images_that_is_not_there_is_one_problem_of_each_task_that_needs_it(folder: Path) -> None:
    (folder / "data" / "welds.csv").write_text("path,label\n")
    text = "defaults: {data: {image_root: nowhere}}\ntasks:\n  - {name: caps, data: data/caps}\n"
    text += "  - {name: a, data: data/welds.csv}\n"
    text += "  - {name: b, data: {path: data/welds.csv, image_root: missing}}\n"
    assert problems_of(folder, text) == [
        f"tasks[1].data (line 4): no such file or folder: {folder / 'nowhere'}",
        f"tasks[2].data.image_root (line 5): no such file or folder: {folder / 'missing'}",
    ]


def test_the_digest_is_that_of_the_file(folder: Path) -> None:
    text = "tasks: [{name: a, data: data/caps}]\n"
    assert load(folder, text).digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "name", ["/site", "site/", "../site", "a//b", "a/../b", ".", "..", "SHIP.x", "MLflow.x"]
)
def test_tags_that_mlflow_would_refuse_are_refused_here(folder: Path, name: str) -> None:
    [problem] = problems_of(folder, f"tasks: [{{name: a, data: data/caps, tags: {{{name!r}: ulm}}}}]\n")
    assert "expected a tag name" in problem


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


def test_wrong_presets_and_searches_are_told_with_their_place(folder: Path) -> None:
    problems = problems_of(
        folder,
        """preset: fast
search: {learning_rates: [1], learning_rate: 0.1}
tasks:
- {name: a, data: data/caps, search: {threshold: [2.0, often]}}
- {name: b, data: data/caps, search: all}
""",
    )

    assert problems == [
        "preset (line 1): expected 'quick', 'balanced' or 'best', got 'fast'",
        "search.learning_rates (line 2): unknown key; did you mean 'learning_rate'?",
        "search.learning_rate (line 2): expected a list of different values, got 0.1",
        "tasks[0].search.threshold (line 4): expected `auto` or a number from -1 to 1 "
        "(published: 0.93 to 0.98), got 2.0",
        "tasks[0].search.threshold (line 4): expected `auto` or a number from -1 to 1 "
        "(published: 0.93 to 0.98), got 'often'",
        "tasks[1].search (line 5): expected lists of values by setting, or false, got 'all'",
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


def test_every_problem_at_once_in_the_order_of_lines(folder: Path) -> None:
    problems = problems_of(
        folder,
        """version: 2
backbon: bundled
backbone: on
store: 5
workers: 0
defaults: {epochs: ten, learning_rat: 0.1}
tasks:
  - name: ../x
    data: ./nothing
    config: {epoch: 5, epochs: 0}
  - data: {path: data/caps, formt: csv, val_fraction: 2}
    tags: {site: [1], mlflow.user: me}
    extra: 1
  - hello
  - name: 5
    data: 7
  - name: a
    data: data/caps
  - name: a
    data: data/none
    config: {epochs: 0}
tasks_from: ./none/*
""",
    )

    assert [problem.split(": ")[0] for problem in problems] == [
        "version (line 1)",
        "backbon (line 2)",
        "backbone (line 3)",
        "store (line 4)",
        "workers (line 5)",
        "defaults.learning_rat (line 6)",
        "defaults.epochs (line 6)",
        "tasks[0].name (line 8)",
        "tasks[0].data (line 9)",
        "tasks[0].config.epoch (line 10)",
        "tasks[0].config.epochs (line 10)",
        "tasks[1].name (line 11)",
        "tasks[1].data.formt (line 11)",
        "tasks[1].data.val_fraction (line 11)",
        "tasks[1].tags.site (line 12)",
        "tasks[1].tags.mlflow.user (line 12)",
        "tasks[1].extra (line 13)",
        "tasks[2] (line 14)",
        "tasks[3].name (line 15)",
        "tasks[3].data (line 16)",
        "tasks[5].name (line 19)",
        "tasks[5].data (line 20)",
        "tasks[5].config.epochs (line 21)",
        "tasks_from (line 22)",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("taks: []", "taks (line 1): unknown key; did you mean 'tasks'?"),
        ("tasks: [{name: a, dta: x}]", "tasks[0].dta (line 1): unknown key; did you mean 'data'?"),
        (
            "tasks: [{name: a, data: data/caps, config: {num_indep: 5}}]",
            "tasks[0].config.num_indep (line 1): unknown key; did you mean 'num_independent'?",
        ),
        (
            "tasks: [{name: a, data: data/caps, config: {threshold: high}}]",
            "tasks[0].config.threshold (line 1): expected `auto` or a number from -1 to 1 "
            "(published: 0.93 to 0.98), got 'high'",
        ),
        (
            "tasks: [{name: a, data: data/caps, config: {attention: joint}}]",
            "tasks[0].config.attention (line 1): unknown key; did you mean 'attention_scale'?",
        ),
        (
            "tasks: [{name: yes, data: data/caps}]",
            "tasks[0].name (line 1): expected text, got True; put it in quotes",
        ),
        ("tasks: {a: data/caps}", "tasks (line 1): expected a list, got a mapping"),
        ("defaults: [1]", "defaults (line 1): expected a mapping, got a list"),
        ("workers: 1.5", "workers (line 1): expected a whole number, got 1.5"),
        ("version: '1'", "version (line 1): expected 1, got '1'"),
        (
            "tasks: []",
            "manifest: no tasks; list at least one under tasks, or name folders of tasks under tasks_from",
        ),
        ("tasks: [{name: a}]", "tasks[0].data (line 1): missing"),
        (
            "tasks: [{name: a, data: {format: csv}}]",
            "tasks[0].data (line 1): path: missing; expected a folder, a file or a URL",
        ),
    ],
)
def test_each_problem_says_what_to_do(folder: Path, text: str, problem: str) -> None:
    assert problem in problems_of(folder, text)


def test_folder_whose_name_is_no_task_name(folder: Path) -> None:
    (folder / "data" / "Big Caps").mkdir()

    (problem,) = problems_of(folder, "tasks_from: data/*")
    assert problem.startswith("tasks_from (line 1): task name 'Big Caps': expected 1 to 63 characters")


def test_folder_that_is_listed_too(folder: Path) -> None:
    (problem,) = problems_of(folder, "tasks: [{name: caps, data: data/caps}]\ntasks_from: data/*")
    assert problem == "tasks_from (line 2): 'caps' is already taken by tasks[0].name (line 1)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found nothing"),
        (b"- a\n- b\n", "found a list"),
        (b"just text", "found 'just text'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "not valid YAML"),
        (b"tasks: [\n", "not valid YAML: line 2, column 1"),
        (b"tasks: 1\ntasks: 2\n", "line 2: key 'tasks' is repeated"),
        (b"#" * (MAX_MANIFEST_BYTES + 1), "expected at most 8388608 bytes"),
    ],
)
def test_files_that_are_no_manifest(folder: Path, content: bytes, message: str) -> None:
    path = folder / "manifest.yaml"
    path.write_bytes(content)

    with pytest.raises(ManifestError, match=message) as caught:
        load_manifest(str(path))
    assert str(path) in str(caught.value)


def test_no_such_manifest(folder: Path) -> None:
    with pytest.raises(ManifestError, match="no such file or folder"):
        load_manifest(str(folder / "no.yaml"))
    with pytest.raises(ManifestError, match="expected a file, found a directory"):
        load_manifest(str(folder))


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
