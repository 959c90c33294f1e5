"""Settings of the data that a manifest gives once for all of its tasks."""

from pathlib import Path

from ship.data import DataSource
from tests.unit.orchestrator.manifest.factory import load, problems_of


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
        "split_seed, group, allow_duplicates, image_root, more",
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
