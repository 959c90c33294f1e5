"""Tables whose labels would be lost, or that are somebody else's: refused by name, and left as they are."""

from collections.abc import Callable

import pytest

from orchestrator.errors import ManifestError
from tests.unit.orchestrator.store.kept.factory import Plant, write_table


def break_more(plant: Plant) -> None:
    (plant.folder / "made" / "a.png").unlink()


def break_table(plant: Plant) -> None:
    (plant.folder / "made" / "labels.csv").write_text("pth,label\na.png,good\n")


def name_held_out(plant: Plant) -> None:
    (plant.folder / "made" / "labels.csv").write_text("path,label,split\na.png,good,test\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            break_more,
            "task 'bolts': more: .*a.png: no such file or folder; its pictures would be lost; mend it",
        ),
        (break_table, "more: .*column 'path' is missing; its pictures would be lost"),
        (name_held_out, "expected training images, found 'a.png' of another split; its pictures"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_by_name(
    plant: Plant, spoil: Callable[[Plant], None], said: str
):
    write_table(plant.folder / "made", {"a.png": "made"}, ["path,label", "a.png,good"])
    plant.write_manifest("made/labels.csv")
    plant.review("new")
    spoil(plant)
    for write in (plant.export, plant.retune):
        with pytest.raises(ManifestError, match=said):
            write()
    assert not (plant.folder / "more").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["path,label", "a.png,good"], "no column 'reviewed_by'.*name another folder"),
        (["path,label,reviewed_by,ship_task", "a.png,good,anna,nuts"], "it has pictures of task 'nuts'"),
        (
            ["path,label,reviewed_by", "gone.png,good,anna"],
            "gone.png: no such file.*its labels would be lost",
        ),
        (["image,class", "a.png,good"], "column 'path' is missing"),
    ],
)
def test_a_table_of_somebody_else_is_not_replaced(plant: Plant, rows: list[str], said: str):
    write_table(plant.folder / "more", {"a.png": "theirs"}, rows)
    content = (plant.folder / "more" / "labels.csv").read_bytes()
    plant.review("new")
    for write in (plant.export, plant.retune, lambda: plant.export(alone=True)):
        with pytest.raises(ManifestError, match=said):
            write()
    assert (plant.folder / "more" / "labels.csv").read_bytes() == content


def test_the_table_of_the_data_themselves_is_not_replaced(plant: Plant):
    rows = [
        f"{split}/{label}/a.png,{label},{split},"
        for split in ("train", "test")
        for label in ("good", "scratched")
    ]
    write_table(plant.folder / "data", {}, ["path,label,split,reviewed_by", *rows])
    plant.write_manifest(settings="path: data/labels.csv")
    plant.review("new")
    with pytest.raises(ManifestError, match="it is the data of task 'bolts' themselves"):
        plant.export("data")
