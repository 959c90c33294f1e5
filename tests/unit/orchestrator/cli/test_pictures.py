"""``ship mistakes``, ``ship eval`` and ``ship compare`` on real artifacts of a tiny backbone."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

from orchestrator.cli.main import cli
from orchestrator.cli.output import Output
from orchestrator.errors import RegistryError
from orchestrator.registry.evidence import read_held_out
from orchestrator.registry.registry import Registry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.making import make_artifact
from ship.backbone import load_backbone
from ship.data import DataSource, load_task_data
from ship.errors import BackboneError, DataError
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.factories import write_backbone, write_stripes
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry
from tests.unit.orchestrator.store.factory import make_artifact as make_bare_artifact
from tests.unit.orchestrator.store.factory import make_key

LABELS = ("good", "scratch")


class PlantOutput(Output):
    """An output whose registry is a given one."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._registry = registry

    def registry(self, *, may_create: bool = False) -> Registry:
        return self._registry


@dataclass(frozen=True)
class Plant:
    """A registry and a store with three versions of `caps`, the third as earlier programs made them.

    The first two were tuned on the same images; their labels of three held-out images are wrong on purpose.
    """

    root: Path
    mlflow: FakeMlflow

    def run(self, *arguments: str) -> None:
        """Run a command on it."""
        store = ("--home", str(self.root / "home"), "--store", str(self.root / "store"))
        cli([*store, *arguments], obj=PlantOutput(make_registry(self.mlflow)), standalone_mode=False)

    def measure(self, *arguments: str) -> None:
        """Run a command that needs the backbone, which lies in a folder."""
        self.run(*arguments, "--backbone", str(self.root / "backbone"))


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    root = tmp_path_factory.mktemp("plant")
    write_backbone(root / "backbone")
    write_stripes(root / "caps")
    for split in ("train", "test"):
        for place, label in enumerate(LABELS):
            (root / "caps" / split / f"direction-{place}").rename(root / "caps" / split / label)
    backbone = load_backbone(str(root / "backbone"))
    data = load_task_data(
        DataSource(path=str(root / "caps")),
        image_size=backbone.image_size,
        interpolation=backbone.interpolation,
    )
    assert data.test is not None
    labels_B = data.test.labels_B.clone()
    labels_B[[0, 7, 8]] = 1 - labels_B[[0, 7, 8]]
    mislabelled = replace(data, test=replace(data.test, labels_B=labels_B))
    store = PromptStore(LocalObjects(root / "store"))
    registry = make_registry(mlflow := FakeMlflow())
    config = TuneConfig(
        epochs=1, num_independent=2, num_shared=1, num_attribute=2, num_prototypes=4, threshold=0.9
    )
    artifacts = [
        make_artifact("caps", backbone, mislabelled, tune(backbone, mislabelled, replace(config, seed=seed)))
        for seed in (0, 1)
    ]
    for number, files in enumerate([*artifacts, make_bare_artifact("caps")], start=1):
        digest = store.publish("caps", make_key(str(number)), files).digest
        registry.register("caps", digest=digest, source=store.uri(digest), run_id=None, metrics={}, tags={})
    mlflow.models["ship.caps"].aliases["champion"] = "2"
    return Plant(root=root, mlflow=mlflow)


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_mistakes_are_those_of_the_champion(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant.run("mistakes", "caps", "--json")
    found = printed(capsys)
    assert (found["task"], found["version"], found["data"]) == ("caps", 2, None)
    assert found["num_kept"] == found["num_images"] == found["accuracy"]["of"] == 12
    assert found["num_mistakes"] == len(found["mistakes"]) == 12 - found["accuracy"]["num"] > 0
    assert sum(map(sum, found["confusion"])) == 12
    plant.run("mistakes", "caps", "--version", "1", "--limit", "1", "--json")
    first = printed(capsys)
    assert first["version"] == 1
    assert len(first["mistakes"]) == 1 <= first["num_mistakes"]


@pytest.mark.parametrize("columns", ["80", "140"])
def test_every_number_in_the_terminal_is_in_the_json(
    plant: Plant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    plant.run("mistakes", "caps", "--json")
    found = printed(capsys)
    plant.run("mistakes", "caps", "--limit", "2")
    text = capsys.readouterr().out
    accuracy = found["accuracy"]
    assert (
        f"caps v2 on 12 held-out images: accuracy {accuracy['share']:.4f} ({accuracy['num']} of 12; "
        f"{accuracy['low']:.4f} to {accuracy['high']:.4f}), balanced {found['balanced_accuracy']:.4f}."
        in text
    )
    for one in found["mistakes"][:2]:
        row = next(line for line in text.splitlines() if one["path"] in line)
        assert f"{one['probability']:.4f}" in row
        assert f"{one['label_probability']:.4f}" in row
    left = found["num_mistakes"] - 2
    assert (f"{left} more are wrong: --limit {found['num_mistakes']} lists all." in text) == (left > 0)
    numbers = set(re.findall(r"\d\.\d{4}", text))
    assert numbers <= set(re.findall(r"\d\.\d{4}", " ".join(f"{x:.4f}" for x in _floats(found))))


def test_a_version_of_an_earlier_program_has_no_pictures(plant: Plant) -> None:
    with pytest.raises(RegistryError, match=r"version 3 of task 'caps' has no answers.*`ship eval caps DATA"):
        plant.run("mistakes", "caps", "--version", "3")
    with pytest.raises(RegistryError, match=r"version 3 of .*: `ship compare caps 2 3 DATA`"):
        plant.run("compare", "caps", "2", "3")
    with pytest.raises(RegistryError, match="has no version 9"):
        plant.run("mistakes", "caps", "--version", "9")
    with pytest.raises(RegistryError, match="'bolts'"):
        plant.run("mistakes", "bolts")


def test_eval_answers_as_the_artifact_does(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant.run("mistakes", "caps", "--json")
    held_out = printed(capsys)
    plant.measure("eval", "caps", str(plant.root / "caps"), "--split", "test", "--json")
    found = printed(capsys)
    assert (found["version"], found["split"], found["num_images"]) == (2, "test", 12)
    # With the true labels, what the wrong ones called a mistake is right, and the other way round.
    wrong = {one["path"] for one in held_out["mistakes"]}
    assert {one["path"] for one in found["mistakes"]} == wrong ^ _mislabelled(plant)
    assert {one["probe_answer"] for one in found["mistakes"]} <= {None}


def test_eval_of_all_images_says_that_it_was_tuned_on_them(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant.measure("eval", "caps", str(plant.root / "caps"), "--version", "1")
    said = capsys.readouterr()
    assert f"caps v1 on 36 images of {plant.root / 'caps'}: accuracy" in said.out
    assert "Version 1 was tuned on some of these images" in said.err
    plant.measure("eval", "caps", str(plant.root / "caps" / "test"))
    assert "was tuned on" not in capsys.readouterr().err


def test_eval_refuses_what_the_task_does_not_know(plant: Plant, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text(f"path,label\n{plant.root}/caps/test/good/0.png,burr\n")
    with pytest.raises(DataError, match="no class 'burr'; it has 'good', 'scratch'"):
        plant.measure("eval", "caps", json.dumps({"path": str(table), "image_root": "/"}))
    with pytest.raises(click.BadParameter, match="'gif' is not one of"):
        plant.measure("eval", "caps", str(table), "--format", "gif")
    with pytest.raises(BackboneError, match="give its place as --backbone"):
        plant.run("eval", "caps", str(plant.root / "caps"))


def test_eval_reads_as_many_pixels_as_tuning(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIP_MAX_PIXELS", "4")
    with pytest.raises(DataError, match="more than the 4 that are allowed; SHIP_MAX_PIXELS sets another"):
        plant.measure("eval", "caps", str(plant.root / "caps"))


def test_eval_takes_a_table_of_one_class(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "good.csv"
    table.write_text("path,label\n" + "".join(f"test/good/{number}.png,good\n" for number in range(4)))
    source = json.dumps({"path": str(table), "image_root": str(plant.root / "caps")})
    plant.measure("eval", "caps", source, "--format", "csv", "--json")
    found = printed(capsys)
    assert found["num_images"] == 4
    assert list(found["recall"]) == ["good"]
    assert found["escapes"]["share"] is None
    assert found["accuracy"]["share"] == found["recall"]["good"]["share"] == found["balanced_accuracy"]
    plant.measure("eval", "caps", source)
    assert "none of 0" in capsys.readouterr().out


def test_compare_on_held_out_images_and_on_data(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant.run("compare", "caps", "1", "2", "--json")
    found = printed(capsys)
    assert found["num_images"] == 12
    for place, version in enumerate(("1", "2")):
        plant.run("mistakes", "caps", "--version", version, "--json")
        assert found["versions"][place]["accuracy"] == printed(capsys)["accuracy"]
    plant.measure("compare", "caps", "1", "2", str(plant.root / "caps"), "--split", "test", "--json")
    on_data = printed(capsys)
    assert (on_data["num_images"], on_data["split"]) == (12, "test")
    # Wrong labels swap what is fixed and broken, and change nothing else.
    mislabelled = _mislabelled(plant)
    differ = {row["path"] for name in ("fixed", "broken") for row in found[name]}
    assert {row["path"] for name in ("fixed", "broken") for row in on_data[name]} == differ
    fixed = {row["path"] for row in found["fixed"]}
    broken = {row["path"] for row in found["broken"]}
    assert {row["path"] for row in on_data["fixed"]} == (fixed - mislabelled) | (broken & mislabelled)
    plant.run("compare", "caps", "1", "2")
    text = capsys.readouterr().out
    assert found["outcome"] in text
    assert all(row["path"] in text for name in ("fixed", "broken") for row in found[name])
    with pytest.raises(click.UsageError, match="about DATA"):
        plant.run("compare", "caps", "1", "2", "--split", "test")


def test_the_page_is_written_and_its_folder_has_to_exist(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "mistakes.html"
    plant.run("mistakes", "caps", "--html", str(page))
    assert str(page) in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").count("data:image/jpeg;base64,") >= 2
    plant.measure("eval", "caps", str(plant.root / "caps" / "test"), "--html", str(page), "--json")
    assert printed(capsys)["num_images"] == 12
    assert "data:image/jpeg;base64," in page.read_text(encoding="utf-8")
    with pytest.raises(click.BadParameter, match="No such file"):
        plant.run("mistakes", "caps", "--html", str(tmp_path / "no" / "page.html"))


def _mislabelled(plant: Plant) -> set[str]:
    """Paths of the held-out images whose label is wrong in what the versions were measured on."""
    paths = sorted(f"test/{label}/{number}.png" for label in LABELS for number in range(6))
    return {paths[place] for place in (0, 7, 8)}


def _floats(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _floats(item)]
    if isinstance(value, list):
        return [number for item in value for number in _floats(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_decisions_are_made_by_the_rule_that_was_set_since(plant: Plant) -> None:
    store = PromptStore(LocalObjects(plant.root / "store"))
    info = make_registry(plant.mlflow).version("caps", 2)
    own = read_held_out(store, "caps", info).rule
    plant.run("threshold", "caps", "--version", "2", "--min-confidence", "0.9", "--reason", "a look at each")
    assert read_held_out(store, "caps", info).rule.min_confidence == 0.9
    plant.run("threshold", "caps", "--version", "2", "--reset")
    assert read_held_out(store, "caps", info).rule == own
