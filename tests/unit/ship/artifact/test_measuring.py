"""An artifact measured on labelled images answers as when it was tuned, on any part of its classes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from ship.artifact.files import LoadedPrompt, load_files
from ship.artifact.making import make_artifact
from ship.artifact.measuring import measure
from ship.backbone import Backbone
from ship.data import DataSource, TaskData
from ship.data.pixel_copies import pixel_digest
from ship.errors import ArtifactError, DataError
from ship.settings.config import TuneConfig
from ship.settings.view import View
from ship.tuning.run import TuneResult, tune
from tests.unit.ship.factory import QUICK, draw_stripes, make_backbone


@pytest.fixture(scope="module")
def result(backbone: Backbone, data: TaskData) -> TuneResult:
    return tune(backbone, data, TuneConfig(**QUICK))


@pytest.fixture(scope="module")
def loaded(backbone: Backbone, data: TaskData, result: TuneResult) -> LoadedPrompt:
    return load_files(make_artifact("caps", backbone, data, result))


@pytest.fixture(scope="module")
def folder(data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The held-out images as class folders, and nothing to train on."""
    root = tmp_path_factory.mktemp("shift-2")
    for place, (image_3HW, label) in enumerate(zip(data.test.images_B3HW, data.test.labels_B, strict=True)):
        target = root / data.labels[label]
        target.mkdir(exist_ok=True)
        Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(target / f"{place}.png")
    return root


def test_the_same_images_get_the_same_answers(
    loaded: LoadedPrompt, backbone: Backbone, data: TaskData, result: TuneResult, folder: Path
) -> None:
    seen: list[tuple[int, int]] = []
    found = measure(
        loaded,
        backbone,
        DataSource(path=str(folder)),
        thumbnails=True,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    places = [int(Path(path).stem) for path in found.paths]
    assert sorted(places) == list(range(18))
    assert found.labels == data.labels
    assert list(found.labels_B) == data.test.labels_B[places].tolist()
    torch.testing.assert_close(
        torch.tensor(found.logits_BC), result.outputs.logits_BC[places], rtol=1e-4, atol=1e-4
    )
    assert loaded.distance is not None
    torch.testing.assert_close(
        torch.tensor(found.distances_B),
        loaded.distance.distances(result.outputs.features_BD[places]),
        rtol=1e-4,
        atol=1e-4,
    )
    assert list(found.digests) == [pixel_digest(data.test.images_B3HW[place]) for place in places]
    assert found.thumbnails
    assert seen == [(done, 18) for done in range(1, 19)]


def test_a_part_of_the_classes_is_enough(loaded: LoadedPrompt, backbone: Backbone, folder: Path) -> None:
    found = measure(loaded, backbone, DataSource(path=_list(folder, "class-1")))
    assert set(found.labels_B) == {1}
    assert len(found) == 6
    assert not found.thumbnails


def test_a_split_is_cut_as_tuning_would(loaded: LoadedPrompt, backbone: Backbone, folder: Path) -> None:
    source = DataSource(path=str(folder), test_fraction=0.5)
    found = measure(loaded, backbone, source, split="test")
    assert len(found) == 9
    assert set(measure(loaded, backbone, source, split="train").paths).isdisjoint(found.paths)
    with pytest.raises(DataError, match="no image in split 'val'"):
        measure(loaded, backbone, source, split="val")


def test_classes_that_the_task_does_not_have_are_named(
    loaded: LoadedPrompt, backbone: Backbone, folder: Path
) -> None:
    table = Path(_list(folder, "class-1"))
    table.write_text(f"{table.read_text()}class-0/0.png,burr\nclass-0/3.png,crack\n")
    with pytest.raises(DataError, match="the task has no class 'burr', 'crack'; it has 'class-0'"):
        measure(loaded, backbone, DataSource(path=str(table)))


def test_images_that_cannot_be_read_are_all_named(
    loaded: LoadedPrompt, backbone: Backbone, tmp_path: Path
) -> None:
    (tmp_path / "class-0").mkdir()
    for number in (1, 2):
        (tmp_path / "class-0" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        measure(loaded, backbone, DataSource(path=str(tmp_path)))
    assert ["1.png" in problem or "2.png" in problem for problem in caught.value.problems] == [True, True]


def test_more_images_than_are_loaded_at_once(
    loaded: LoadedPrompt, backbone: Backbone, tmp_path: Path
) -> None:
    split = draw_stripes(300, 3, seed=5)
    lines = ["path,label"]
    for place, (image_3HW, label) in enumerate(zip(split.images_B3HW, split.labels_B, strict=True)):
        Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(tmp_path / f"{place:03d}.png")
        lines.append(f"{place:03d}.png,class-{label}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    seen: list[tuple[int, int]] = []
    found = measure(
        loaded,
        backbone,
        DataSource(path=str(tmp_path / "all.csv")),
        on_progress=lambda *done: seen.append(done),
    )
    assert seen[-1] == (300, 300)
    assert list(found.labels_B) == split.labels_B.tolist()


def test_tiles_are_measured_as_they_were_tuned(tmp_path: Path, backbone: Backbone, data: TaskData) -> None:
    def tiled(images_B3HW: torch.Tensor) -> torch.Tensor:
        return torch.stack([images_B3HW, images_B3HW.flip(-1)], dim=1)

    both = replace(
        data,
        train=replace(data.train, images_B3HW=tiled(data.train.images_B3HW)),
        test=replace(data.test, images_B3HW=tiled(data.test.images_B3HW)),
        view=View(tiles="1x2", tile_overlap=0.0),
    )
    result = tune(backbone, both, TuneConfig(**{**QUICK, "epochs": 1}))
    loaded = load_files(make_artifact("caps", backbone, both, result))
    (tmp_path / "class-0").mkdir()
    for place in range(18):
        if both.test.labels_B[place] == 0:
            wide_3HX = torch.cat(list(both.test.images_B3HW[place]), dim=-1)
            Image.fromarray(wide_3HX.permute(1, 2, 0).numpy()).save(tmp_path / "class-0" / f"{place}.png")
    found = measure(loaded, backbone, DataSource(path=str(tmp_path)))
    places = [int(Path(path).stem) for path in found.paths]
    torch.testing.assert_close(
        torch.tensor(found.logits_BC), result.outputs.logits_BC[places], rtol=1e-4, atol=1e-4
    )


def test_another_backbone_is_refused(loaded: LoadedPrompt, folder: Path) -> None:
    with pytest.raises(ArtifactError, match="belongs to backbone"):
        measure(loaded, make_backbone(seed=1), DataSource(path=str(folder)))


def _list(folder: Path, label: str) -> str:
    """A table of the images of one class."""
    table = folder / f"{label}.csv"
    names = sorted(path.name for path in (folder / label).iterdir())
    table.write_text("path,label\n" + "".join(f"{label}/{name},{label}\n" for name in names))
    return str(table)
