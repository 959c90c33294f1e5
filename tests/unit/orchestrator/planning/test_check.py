"""Drawn data with one fault each; what is found, and that sound data is left alone."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from orchestrator.manifest.model import DataLimits, TaskEntry
from orchestrator.planning.check import TaskCheck, check_task, find_label_typos
from ship.data import DataSource, describe_data
from ship.settings.config import TuneConfig
from ship.settings.view import View
from tests.console import run_ship as run

NUM_TRAIN, NUM_TEST = 12, 30


def draw(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A surface with coarse and fine grain, unlike that of any other seed."""
    random = np.random.default_rng(seed)
    patches = Image.fromarray(random.integers(60, 200, (8, 8), dtype=np.uint8))
    coarse = patches.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse, np.float32) + random.normal(0, 12, (size[1], size[0]))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, train and test apart, nothing wrong with it."""
    seed = 0
    for split, number in (("train", NUM_TRAIN), ("test", NUM_TEST // 2)):
        for label in ("good", "scratched"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for index in range(number):
                draw(seed).save(tmp_path / "data" / split / label / f"{index}.png")
                seed += 1
    return tmp_path / "data"


def check(folder: Path, **limits: float) -> TaskCheck:
    entry = TaskEntry(name="parts", source=DataSource(path=str(folder)), config=TuneConfig())
    return check_task(entry, DataLimits(**limits))


def test_sound_data_is_left_alone(folder: Path) -> None:
    found = check(folder)

    assert found.findings == ()
    assert (found.num_train, found.num_held_out, found.num_classes) == (2 * NUM_TRAIN, NUM_TEST, 2)
    assert not found.has_failed


def spoil_corrupt(folder: Path) -> None:
    path = folder / "train" / "good" / "0.png"
    path.write_bytes(path.read_bytes()[:300])


def spoil_leaked(folder: Path) -> None:
    (folder / "test" / "good" / "0.png").write_bytes((folder / "train" / "good" / "3.png").read_bytes())


def spoil_contradictory(folder: Path) -> None:
    (folder / "train" / "good" / "0.png").write_bytes((folder / "train" / "scratched" / "3.png").read_bytes())


def spoil_near(folder: Path) -> None:
    image = Image.open(folder / "train" / "good" / "3.png")
    image.point(lambda value: value * 0.9 + 10).save(folder / "test" / "good" / "0.png")


def spoil_dark(folder: Path) -> None:
    image = Image.open(folder / "train" / "good" / "3.png")
    image.point(lambda value: value * 0.08).save(folder / "train" / "good" / "3.png")


def spoil_flat(folder: Path) -> None:
    Image.new("L", (64, 64), 128).save(folder / "train" / "good" / "3.png")


def spoil_blurred(folder: Path) -> None:
    image = Image.open(folder / "train" / "good" / "3.png")
    image.filter(ImageFilter.GaussianBlur(4)).save(folder / "train" / "good" / "3.png")


def spoil_odd(folder: Path) -> None:
    draw(999, (128, 64)).save(folder / "train" / "good" / "3.png")


def spoil_imbalance(folder: Path) -> None:
    for index in range(11 * NUM_TRAIN - NUM_TRAIN):
        draw(2000 + index).save(folder / "train" / "good" / f"more-{index}.png")


def spoil_few(folder: Path) -> None:
    for index in range(4, NUM_TRAIN):
        (folder / "train" / "scratched" / f"{index}.png").unlink()


def spoil_held_out(folder: Path) -> None:
    (folder / "test" / "good" / "0.png").unlink()


def spoil_labels(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "Good").mkdir()
        for index in range(5):
            (folder / split / "good" / f"{index}.png").rename(folder / split / "Good" / f"{index}.png")


@pytest.mark.parametrize(
    ("spoil", "kind", "is_failure", "example"),
    [
        (spoil_corrupt, "corrupt", True, "train/good/0.png: broken PNG file"),
        (spoil_leaked, "leaked", True, "test/good/0.png = train/good/3.png"),
        (spoil_contradictory, "contradictory", True, "train/good/0.png (good)"),
        (spoil_near, "near_duplicates", False, "test/good/0.png ~ train/good/3.png"),
        (spoil_dark, "dark", False, "train/good/3.png"),
        (spoil_flat, "flat", False, "train/good/3.png"),
        (spoil_blurred, "blurred", False, "train/good/3.png"),
        (spoil_odd, "odd_sized", False, "train/good/3.png (128 x 64)"),
        (spoil_imbalance, "imbalance", False, "scratched (12)"),
        (spoil_few, "images_a_class", False, "scratched (4)"),
        (spoil_held_out, "held_out", False, None),
        (spoil_labels, "label_typos", False, "'Good' and 'good'"),
    ],
)
def test_each_fault_is_found(
    folder: Path, spoil: Callable[[Path], None], kind: str, is_failure: bool, example: str | None
) -> None:
    spoil(folder)
    findings = {finding.kind: finding for finding in check(folder).findings}

    # A copy under two classes is a copy in its split, too.
    assert set(findings) - ({"duplicates"} if kind == "contradictory" else set()) == {kind}
    assert findings[kind].failed == is_failure
    if example is not None:
        assert findings[kind].examples[0].startswith(example)


@pytest.mark.parametrize(
    ("spoil", "limit", "allowed", "exceeded"),
    [
        (spoil_corrupt, "corrupt", 1 / 54, 0.018),
        (spoil_leaked, "leaked", 1 / 30, 0.03),
        (spoil_near, "near_duplicates", 1 / 30, 0.03),
        (spoil_dark, "dark", 1 / 54, 0.0),
        (spoil_blurred, "blurred", 1 / 54, 0.0),
        (spoil_odd, "odd_sized", 1 / 54, 0.0),
        (spoil_imbalance, "imbalance", 11, 10.9),
        (spoil_few, "images_a_class", 4, 5),
        (spoil_held_out, "held_out", 29, 30),
        (spoil_labels, "label_typos", 1, 0),
    ],
)
def test_a_limit_says_how_much_is_too_much(
    folder: Path, spoil: Callable[[Path], None], limit: str, allowed: float, exceeded: float
) -> None:
    spoil(folder)

    assert not check(folder, **{limit: allowed}).has_failed
    assert check(folder, **{limit: exceeded}).has_failed


def test_a_class_without_held_out_images_is_told_and_fails_nothing(folder: Path) -> None:
    for number in range(NUM_TRAIN):
        (folder / "train" / "dented").mkdir(exist_ok=True)
        draw(1000 + number).save(folder / "train" / "dented" / f"{number}.png")
    [found] = check(folder).findings
    assert (found.kind, found.failed, found.examples) == ("unmeasured", False, ("dented",))
    assert found.message == (
        "no held-out image of 'dented': the share that is found is not measured; add some"
    )
    shutil.rmtree(folder / "test" / "scratched")
    found = next(finding for finding in check(folder).findings if finding.kind == "unmeasured")
    assert found.examples == ("dented", "scratched")
    assert "of 'dented', 'scratched': by those of one class no version passes the gate" in found.message


def test_data_without_a_layout_fails(tmp_path: Path) -> None:
    found = check(tmp_path / "nowhere.csv")

    assert found.has_failed
    assert "no such" in found.findings[0].message


def test_the_same_problem_of_many_rows_is_one_finding(tmp_path: Path) -> None:
    rows = "\n".join(f"{number}.png," for number in range(50))
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}\n")

    [finding] = check(tmp_path / "t.csv").findings

    assert finding.message.count("t.csv: line ") == 3
    assert finding.message.endswith(", ... (50 times): label is empty")


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [
        (["ok", "not-ok"], []),
        (["Scratch", "scratch"], [("Scratch", "scratch")]),
        (["hole small", "hole_small"], [("hole small", "hole_small")]),
        (["discoloured", "discolored"], [("discolored", "discoloured")]),
        (["type-1", "type-2", "type-10"], []),
        (["left", "lift"], []),
        (["ガラス", "カ\u3099ラス"], [("カ\u3099ラス", "ガラス")]),
        (["\uff2f\uff2b", "ok"], [("ok", "\uff2f\uff2b")]),
    ],
)
def test_labels_that_may_be_one(labels: list[str], pairs: list[tuple[str, str]]) -> None:
    assert find_label_typos(labels) == pairs


def test_the_command_fails_only_by_the_manifests_limits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_dark(folder)
    manifest = folder.parent / "lines.yaml"
    manifest.write_text("tasks: [{name: parts, data: data}]\n")
    assert run(monkeypatch, "check", str(manifest)) == 0
    assert "warning dark: 1 of 54 images: almost black" in capsys.readouterr().out

    manifest.write_text("checks: {dark: 0}\ntasks: [{name: parts, data: data}]\n")
    assert run(monkeypatch, "check", str(manifest), "--json") == 1
    [found] = json.loads(capsys.readouterr().out)
    assert found["failed"]
    assert [finding["kind"] for finding in found["findings"]] == ["dark"]
    before = sorted(folder.parent.rglob("*"))
    assert run(monkeypatch, "tune", str(manifest), "--check") == 1
    assert "FAILED dark" in capsys.readouterr().err
    assert sorted(folder.parent.rglob("*")) == before

    manifest.write_text("checks: {drak: 0, dark: 2}\ntasks: [{name: parts, data: data}]\n")
    assert run(monkeypatch, "check", str(manifest)) == 2
    printed = capsys.readouterr().err
    assert "checks.drak (line 1): unknown key; did you mean 'dark'?" in printed
    assert "checks.dark (line 1): expected a number from 0 to 1, got 2" in printed


def test_pictures_that_are_shrunk_too_far_are_told_and_fail_nothing(folder: Path) -> None:
    entry = TaskEntry(name="parts", source=DataSource(path=str(folder)), config=TuneConfig())
    width, height = describe_data(entry.source).sizes[0]
    small = (height // 4, width // 4)
    [found] = check_task(entry, DataLimits(), input_size=small).findings
    assert (found.kind, found.failed) == ("shrunk", False)
    assert f"pictures of {width} x {height} are shrunk to {small[1]} x {small[0]} pixels" in found.message
    tiled = replace(entry, view=View(tiles="2x2"))
    assert check_task(tiled, DataLimits(), input_size=small).findings == ()
    assert check_task(entry, DataLimits(), input_size=(height, width)).findings == ()
