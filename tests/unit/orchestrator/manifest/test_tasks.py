"""Tasks found in folders, the terms on which they run, and manifests of which a part is sound."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from orchestrator.durations import describe_seconds, parse_duration
from orchestrator.manifest.floors import Floors
from orchestrator.manifest.model import RefusedTask, Terms, parse_deadline
from ship.settings.config import TuneConfig
from ship.settings.view import View
from tests.unit.orchestrator.manifest.factory import load, problems_of

# 2026-11-30T05:00:00Z
DEADLINE_S = 1_796_014_800.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ulm/caps", "ulm/bolts", "jena/gears"):
        (tmp_path / "lines" / name).mkdir(parents=True)
    return tmp_path


def test_folders_with_what_holds_for_their_tasks(folder: Path) -> None:
    manifest = load(
        folder,
        """
        defaults: {epochs: 7, tags: {plant: main}, budget: 2h}
        preset: quick
        tasks_from:
          - lines/jena
          - path: lines/ulm/*
            tags: {site: ulm}
            config: {num_independent: 3}
            preset: best
            search: false
            priority: 5
            deadline: 2026-11-30T06:00:00+01:00
            budget: 30m
        """,
    )

    gears, bolts, caps = manifest.tasks
    assert [task.name for task in manifest.tasks] == ["gears", "bolts", "caps"]
    assert gears.source.path == str(folder / "lines" / "jena" / "gears")
    assert (gears.tags, gears.preset, gears.terms) == ({"plant": "main"}, "quick", Terms(budget_s=7200.0))
    for found in (bolts, caps):
        assert found.tags == {"plant": "main", "site": "ulm"}
        assert found.config == TuneConfig(epochs=7, num_independent=3)
        assert found.preset == "best"
        assert found.search is not None
        assert found.terms == Terms(priority=5, deadline_s=DEADLINE_S, budget_s=1800.0)
        assert found.pinned == {"epochs", "num_independent"}


def test_a_folder_without_a_wildcard_means_the_folders_in_it(folder: Path) -> None:
    (folder / "linked").mkdir()
    (folder / "linked" / "welds").symlink_to(folder / "lines" / "ulm" / "caps")

    assert [task.name for task in load(folder, "tasks_from: linked/").tasks] == ["welds"]
    assert [task.name for task in load(folder, "tasks_from: {path: lines/ulm}").tasks] == ["bolts", "caps"]


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    for name in ("b1", "b2", ".trash", "a"):
        filesystem.pipe_file(f"/plant/{name}/ok/0.png", b"")
    filesystem.pipe_file("/plant/b3.png", b"")
    yield filesystem
    filesystem.rm("/plant", recursive=True)


def test_folders_of_a_remote_file_system(folder: Path, memory: fsspec.AbstractFileSystem) -> None:
    manifest = load(folder, "tasks_from: [{path: memory://plant/b*, tags: {site: ulm}}]")
    assert [(task.name, task.source.path, task.tags) for task in manifest.tasks] == [
        ("b1", "memory:///plant/b1", {"site": "ulm"}),
        ("b2", "memory:///plant/b2", {"site": "ulm"}),
    ]
    assert [task.name for task in load(folder, "tasks_from: memory://plant").tasks] == ["a", "b1", "b2"]


def test_wrong_folders_are_told_with_their_place(folder: Path) -> None:
    problems = problems_of(
        folder,
        """tasks_from:
- {path: lines/ulm, tag: {site: ulm}, config: {epochs: 0}}
- {tags: {site: ulm}}
- lines/none/*
- 5
- {path: lines/ulm/caps/../bol*, priority: high, deadline: 2026-11-30, budget: 90, approvals: 2}
- nosuchscheme://x/*
""",
    )
    assert [problem.replace(str(folder), "") for problem in problems] == [
        "tasks_from[0].tag (line 2): unknown key; did you mean 'tags'?",
        "tasks_from[0].config.epochs (line 2): expected a whole number from 1 to 100000, got 0",
        "tasks_from[1].path (line 3): missing",
        "tasks_from[2] (line 4): no folder matches /lines/none/*",
        "tasks_from[3] (line 5): expected a path, or a mapping with a path, got 5",
        "tasks_from[4].priority (line 6): expected a whole number of at most 1000000, got 'high'",
        "tasks_from[4].deadline (line 6): expected a date-time with a zone such as "
        "2026-11-30T06:00:00+01:00, got datetime.date(2026, 11, 30)",
        "tasks_from[4].budget (line 6): expected a duration above zero such as 30m, 2h or 1h30m, got 90",
        "tasks_from[4].approvals (line 6): expected 0, or 1 for a promotion that waits for a second person, "
        "got 2",
        "tasks_from[4] (line 6): 'bolts' is already taken by tasks_from[0] (line 2)",
        "tasks_from[5] (line 7): nosuchscheme://x/*: ValueError: Protocol not known: nosuchscheme",
    ]


def test_a_tasks_own_terms_win_over_the_defaults(folder: Path) -> None:
    manifest = load(
        folder,
        """
        defaults: {priority: 1, deadline: 2026-11-30T05:00:00Z, tags: {site: ulm, line: 1}}
        tasks:
          - {name: a, data: lines/ulm}
          - {name: b, data: lines/ulm, priority: -2, budget: 90s, approvals: 1, tags: {line: 2}}
        """,
    )
    a, b = manifest.tasks
    assert (a.terms, a.tags) == (Terms(priority=1, deadline_s=DEADLINE_S), {"site": "ulm", "line": "1"})
    assert b.terms == Terms(priority=-2, deadline_s=DEADLINE_S, budget_s=90.0, approvals=1)
    assert b.tags == {"site": "ulm", "line": "2"}
    assert a.config == TuneConfig()


def test_wrong_defaults_are_told_with_their_place(folder: Path) -> None:
    text = "defaults: {priorty: 1, deadline: soon, tags: ulm}\ntasks: [{name: a, data: lines}]"

    assert problems_of(folder, text) == [
        "defaults.tags (line 1): expected a mapping, got 'ulm'",
        "defaults.priorty (line 1): unknown key; did you mean 'priority'?",
        "defaults.deadline (line 1): expected a date-time with a zone such as 2026-11-30T06:00:00+01:00, "
        "got 'soon'",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "30", 30, "h", "30m2h", "-5m", "0s", None, "1e3s", "9" * 400 + "d"])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="such as 30m"):
        parse_duration(value)


@pytest.mark.parametrize("text", ["2026-11-30T06:00:00+01:00", "2026-11-30T05:00Z", "2026-11-30 05:00:00Z"])
def test_deadlines(text: str) -> None:
    assert parse_deadline(text) == DEADLINE_S


@pytest.mark.parametrize("value", ["2026-11-30T05:00:00", "tomorrow", 7, "2026-13-01T00:00Z"])
def test_what_is_no_deadline(value: object) -> None:
    with pytest.raises(ValueError, match="with a zone"):
        parse_deadline(value)


def test_spans_of_time_have_a_unit_that_suits_them() -> None:
    assert [describe_seconds(s) for s in (12, 600, 9000, 90_000)] == ["12 s", "10 min", "150 min", "25.0 h"]


def test_of_many_tasks_the_sound_ones_are_left(folder: Path) -> None:
    tasks: list[object] = [{"name": f"t{number}", "data": "lines"} for number in range(500)]
    tasks[7] = {"name": "welds", "data": "lines/none", "tags": {"site": "ulm"}, "config": {"epoch": 3}}
    tasks[80] = "hello"
    tasks[499] = {"name": "../x", "data": "lines"}
    text = json.dumps({"tasks": tasks}, indent=0)

    assert len(problems_of(folder, text)) == 4
    manifest = load(folder, text, keep_going=True)
    assert len(manifest.tasks) == 497
    welds, hello, outside = manifest.refused
    assert (welds.name, welds.tags) == ("welds", {"site": "ulm"})
    assert [reason.split(" (")[0] for reason in welds.reasons] == ["tasks[7].data", "tasks[7].config.epoch"]
    assert hello.name.startswith("tasks[80] (line ")
    assert "task name '../x'" in outside.reasons[0]


def test_two_tasks_of_one_name_are_both_refused(folder: Path) -> None:
    text = "tasks:\n- {name: a, data: lines}\n- {name: a, data: lines/ulm}\n- {name: b, data: lines}"
    reason = "tasks[1].name (line 3): 'a' is already taken by tasks[0].name (line 2)"

    assert problems_of(folder, text) == [reason]
    manifest = load(folder, text, keep_going=True)
    assert [task.name for task in manifest.tasks] == ["b"]
    assert manifest.refused == (RefusedTask(name="a", reasons=(reason,)),) * 2


def test_a_folder_that_is_no_task_is_refused_alone(folder: Path) -> None:
    (folder / "lines" / "ulm" / "Big Caps").mkdir()
    manifest = load(folder, "tasks_from: lines/ulm/*", keep_going=True)

    assert [task.name for task in manifest.tasks] == ["bolts", "caps"]
    assert "Big Caps" in manifest.refused[0].reasons[0]


@pytest.mark.parametrize(
    "text",
    [
        "wokers: 2\ntasks: [{name: a, data: lines}]",
        "defaults: {epochs: 0}\ntasks: [{name: a, data: lines}]",
        "tasks: [{name: a, data: lines}]\ntasks_from: lines/none/*",
        "tasks: [{name: a, data: none}]",
    ],
)
def test_what_spoils_the_whole_manifest_is_an_error_all_the_same(folder: Path, text: str) -> None:
    assert len(problems_of(folder, text, keep_going=True)) == 1


def test_an_executor(folder: Path) -> None:
    assert load(folder, "executor: actors\ntasks: [{name: a, data: lines}]").pool.executor == "actors"
    assert problems_of(folder, "executor: spark\ntasks: [{name: a, data: lines}]") == [
        "executor (line 1): expected 'train' or 'actors', got 'spark'"
    ]


def test_a_limit_of_tasks(folder: Path) -> None:
    assert load(folder, "max_tasks: 3\ntasks: [{name: a, data: lines}]").max_tasks == 3
    assert problems_of(folder, "max_tasks: 0\ntasks: [{name: a, data: lines}]") == [
        "max_tasks (line 1): expected 1 or more, got 0"
    ]


def test_a_view_over_that_of_the_defaults(folder: Path) -> None:
    manifest = load(
        folder,
        """
        backbone: {name: bundled, image_size: 96}
        defaults: {view: {tiles: 2x2, fit: pad}}
        tasks:
        - {name: caps, data: lines/ulm/caps}
        - name: bolts
          data: lines/ulm/bolts
          view: {crop: [10, 20, 300, 200], tiles: auto}
          config: {augment: flips}
        tasks_from: {path: lines/jena, view: {fit: crop}}
        """,
    )
    assert (manifest.backbone, manifest.image_size) == ("bundled", 96)
    caps, bolts, gears = manifest.tasks
    assert caps.view == View(tiles="2x2", fit="pad")
    assert bolts.view == View(crop=(10, 20, 300, 200), tiles="auto", fit="pad")
    assert gears.view == View(tiles="2x2", fit="crop")
    assert bolts.config.augment == "flips"


def test_floors_over_those_of_the_defaults(folder: Path) -> None:
    manifest = load(
        folder,
        """
        defaults: {gate: {accuracy: 0.9, recall: {scratch: 0.95}}}
        tasks:
        - {name: caps, data: lines/ulm/caps}
        - name: bolts
          data: lines/ulm/bolts
          gate: {accuracy: 0.8, recall: {dent: 1}}
        """,
    )
    caps, bolts = manifest.tasks
    assert caps.floors == Floors(accuracy=0.9, recall={"scratch": 0.95})
    assert bolts.floors == Floors(accuracy=0.8, recall={"scratch": 0.95, "dent": 1})


def test_thumbnails_are_kept_unless_the_task_or_the_defaults_say_no(folder: Path) -> None:
    rows = """
        tasks:
        - {name: caps, data: lines/ulm/caps}
        - {name: bolts, data: lines/ulm/bolts, thumbnails: false}
        tasks_from: {path: lines/jena, thumbnails: true}
        """
    assert [task.thumbnails for task in load(folder, rows).tasks] == [True, False, True]
    secret = load(folder, f"\n        defaults: {{thumbnails: false}}{rows}")
    assert [task.thumbnails for task in secret.tasks] == [False, False, True]


def test_thumbnails_of_the_defaults_are_true_or_false(folder: Path) -> None:
    found = problems_of(folder, "defaults: {thumbnails: 3}\ntasks: [{name: caps, data: lines/ulm/caps}]")
    assert found == ["defaults.thumbnails (line 1): expected true or false, got 3"]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("thumbnails: none", "tasks[0].thumbnails (line 2): expected true or false, got 'none'"),
        ("gate: {accuracy: 90}", "tasks[0].gate.accuracy (line 2): expected a number from 0 to 1"),
        ("gate: {recall: {scratch: 2}}", "expected a mapping of classes, each with a number from 0 to 1"),
        ("gate: {recal: {scratch: 1}}", "did you mean 'recall'?"),
        ("gate: 0.9", "expected a mapping"),
        ("view: {tiles: 7}", "tasks[0].view.tiles (line 2): expected `auto` or ROWSxCOLUMNS"),
        ("view: {crop: [1, 2]}", "expected [x, y, width, height]"),
        ("view: {tile: 2x2}", "did you mean 'tiles'?"),
        ("view: 2x2", "expected a mapping"),
    ],
)
def test_wrong_views_and_floors_are_told_with_their_place(folder: Path, row: str, what: str) -> None:
    found = problems_of(folder, f"tasks:\n- {{name: caps, data: lines/ulm/caps, {row}}}")
    assert len(found) == 1
    assert what in found[0]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("{name: bundled, image_size: big}", "expected a whole number"),
        ("{name: bundled, image_size: 0}", "expected 1 or more"),
        ("{name: bundled, size: 96}", "unknown key"),
        ("[bundled]", "expected text"),
        ("''", "expected text, got ''"),
    ],
)
def test_wrong_backbones_are_told(folder: Path, value: str, what: str) -> None:
    found = problems_of(folder, f"backbone: {value}\ntasks: [{{name: caps, data: lines/ulm/caps}}]")
    assert len(found) == 1
    assert "backbone" in found[0]
    assert what in found[0]
