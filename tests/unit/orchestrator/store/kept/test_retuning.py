"""Reviewed pictures over several rounds: what was reviewed stays in the table, whatever the store drops."""

from dataclasses import replace

import fsspec
import pytest

from orchestrator.errors import ManifestError, StoreError
from ship.data import DataSource
from ship.data.listing import list_items
from tests.unit.orchestrator.store.kept.factory import ANNA, BEN, PNG, Plant, keep, write_table


@pytest.mark.parametrize("second", ["more", "elsewhere"])
@pytest.mark.parametrize("expires", [True, False])
def test_rounds_add_up_whether_or_not_the_store_has_the_earlier_pictures(
    plant: Plant, second: str, *, expires: bool
):
    """The manifest names the table of the first round all along, or that of the second."""
    plant.review("1", "2", "3")
    assert plant.retune().num_pictures == 3
    plant.write_manifest("more/labels.csv")
    if expires:
        plant.expire()
    plant.review("4", label="scratched")

    found = plant.retune(second)

    all_ = {"1": "good", "2": "good", "3": "good", "4": "scratched"}
    assert (found.num_pictures, found.num_earlier, found.num_known) == (4, 3, 0)
    assert plant.trained(f"{second}/retune.yaml") == all_
    before = dict(list(all_.items())[:3])
    assert plant.trained() == (all_ if second == "more" else before), "the manifest as it stands"
    plant.write_manifest(f"{second}/labels.csv")
    if expires:
        plant.expire()
    plant.review("5")
    assert plant.retune("third").num_pictures == 5
    assert plant.trained("third/retune.yaml") == all_ | {"5": "good"}


def test_the_documented_export_may_be_repeated_without_end(plant: Plant):
    plant.review("1", "2")
    plant.export()
    plant.write_manifest("more/labels.csv")
    for number in range(3, 7):
        plant.expire()
        plant.review(str(number))
        for _ in range(2):
            assert plant.export().num_pictures == number
            assert len(plant.trained()) == number
    plant.expire()
    content = (plant.folder / "more" / "labels.csv").read_bytes()
    assert (plant.export().num_pictures, plant.export(alone=True).num_pictures) == (6, 6)
    assert (plant.folder / "more" / "labels.csv").read_bytes() == content


@pytest.mark.parametrize("alone", [True, False])
def test_without_more_in_the_manifest_the_table_that_is_replaced_is_taken_over(plant: Plant, *, alone: bool):
    plant.review("1", "2")
    plant.export(alone=alone)
    plant.expire()
    plant.review("3")
    assert plant.export(alone=alone).num_pictures == 3
    plant.expire()
    plant.review("4")
    assert plant.retune().num_pictures == 4
    assert set(plant.trained("more/retune.yaml")) == {"1", "2", "3", "4"}


def test_the_newer_label_counts_in_the_store_and_then_among_tables(plant: Plant):
    plant.review("1", "2")
    plant.export("first")
    plant.review("1", label="scratched")
    plant.write_manifest("first/labels.csv")
    assert plant.retune("second").num_pictures == 2
    changed = {"1": "scratched", "2": "good"}
    assert plant.trained("second/retune.yaml") == changed
    plant.expire()
    plant.review("3")
    # The manifest still names the first table.
    plant.retune("second")
    assert plant.trained("second/retune.yaml") == changed | {"3": "good"}
    plant.write_manifest("second/labels.csv")
    plant.expire()
    plant.review("4")
    plant.retune("first")
    assert plant.trained("first/retune.yaml") == changed | {"3": "good", "4": "good"}


@pytest.mark.parametrize("folder", ["more", "elsewhere"])
def test_a_label_that_is_no_longer_settled_leaves_the_table(plant: Plant, folder: str):
    _, undone, *_ = plant.review("stays", "undone", "left out", "disputed")
    plant.export()
    plant.write_manifest("more/labels.csv")
    plant.reviews.undo("bolts", undone, ANNA)
    plant.review("left out", label=None)
    plant.review("disputed", label="scratched", by=BEN)

    found = plant.retune(folder)

    assert (found.num_pictures, found.num_taken_back) == (1, 3)
    assert plant.trained(f"{folder}/retune.yaml") == {"stays": "good"}
    plant.expire()
    plant.write_manifest(f"{folder}/labels.csv")
    plant.review("new")
    plant.retune(folder)
    assert set(plant.trained(f"{folder}/retune.yaml")) == {"stays", "new"}


def test_where_every_label_was_taken_back_nothing_is_tuned_and_an_export_has_none(plant: Plant):
    [picture] = plant.review("1")
    plant.export()
    plant.write_manifest("more/labels.csv")
    plant.reviews.undo("bolts", picture, ANNA)
    with pytest.raises(ManifestError, match="nothing of `more` is to stay: take it out"):
        plant.retune()
    assert plant.export().num_taken_back == 1
    plant.review("2")
    # A table with a header alone has nothing to take over.
    assert plant.retune().num_pictures == 1


def test_a_picture_that_is_kept_anew_keeps_its_label_until_somebody_looks(plant: Plant):
    plant.review("1")
    plant.export()
    plant.write_manifest("more/labels.csv")
    plant.expire()
    keep(plant.reviews, PNG + b"1")
    plant.review("2")
    plant.export()
    assert plant.trained() == {"1": "good", "2": "good"}


def test_nothing_new_is_told_and_changes_nothing(plant: Plant):
    plant.review("1")
    plant.retune()
    plant.write_manifest("more/labels.csv")
    before = {path: path.read_bytes() for path in (plant.folder / "more").rglob("*") if path.is_file()}
    for folder in ("more", "elsewhere"):
        with pytest.raises(ManifestError, match="no picture with a settled label that its data lack"):
            plant.retune(folder)
    assert {
        path: path.read_bytes() for path in (plant.folder / "more").rglob("*") if path.is_file()
    } == before
    assert not (plant.folder / "elsewhere").exists()


def test_what_went_into_the_data_themselves_is_no_longer_in_the_table(plant: Plant):
    first, _ = plant.review("1", "2")
    plant.export()
    plant.write_manifest("more/labels.csv")
    picture = plant.folder / "more" / "pictures" / f"{first}.png"
    (plant.folder / "data" / "test" / "good" / "b.png").write_bytes(picture.read_bytes())
    found = plant.export()
    assert (found.num_pictures, found.num_known) == (1, 1)
    assert plant.trained() == {"2": "good"}


def test_a_class_that_the_reviewed_pictures_alone_have_stays(plant: Plant):
    """Without them the data are not valid, and are not asked to be."""
    plant.review("1", label="scratched")
    plant.export()
    plant.write_manifest("more/labels.csv")
    (plant.folder / "data" / "train" / "scratched").rename(plant.folder / "data" / "train" / "bent")
    plant.expire()
    plant.review("2")
    plant.export()
    assert plant.trained() == {"1": "scratched", "2": "good"}


def test_paths_and_columns_that_persons_gave_stay_for_they_tell_groups(plant: Plant):
    write_table(
        plant.folder / "made",
        {"part-7-a.png": "seven", "deep/b.png": "deep"},
        [
            "file_name;label;split;part;note",
            'part-7-a.png;good;train;7;"a, b"',
            "./deep/b.png;scratched;train;9;",
        ],
    )
    plant.write_manifest("made/labels.csv")
    plant.review("new")
    plant.export()
    assert (plant.folder / "more" / "part-7-a.png").read_bytes() == PNG + b"seven"
    source = DataSource(path=str(plant.folder / "data"), more=str(plant.folder / "more" / "labels.csv"))
    items = list_items(replace(source, group=r"(train|test|part-\d)")).items
    assert {item.path: item.group for item in items}["more/part-7-a.png"] == "part-7"
    header, *rows = (plant.folder / "more" / "labels.csv").read_text().splitlines()
    assert header == "path,label,reviewed_by,answered_by_version,reviewed_at,ship_task,part,note"
    assert 'part-7-a.png,good,,,,bolts,7,"a, b"' in rows
    assert "deep/b.png,scratched,,,,bolts,9," in rows
    plant.write_manifest("more/labels.csv")
    content = (plant.folder / "more" / "labels.csv").read_text()
    plant.export("again")
    assert (plant.folder / "again" / "labels.csv").read_text() == content


def test_no_file_of_the_folder_is_written_over(plant: Plant):
    [picture] = plant.review("new")
    write_table(plant.folder / "made", {"a.png": "made"}, ["path,label", "a.png,good"])
    write_table(
        plant.folder / "more",
        # A person has cut the picture that was exported before.
        {"a.png": "there", f"pictures/{picture}.png": "cut"},
        ["path,label,reviewed_by", f"pictures/{picture}.png,scratched,anna"],
    )
    plant.write_manifest("made/labels.csv")
    plant.retune()
    assert plant.trained("more/retune.yaml") == {"made": "good", "cut": "scratched", "new": "good"}
    assert (plant.folder / "more" / "a.png").read_bytes() == PNG + b"there"
    plant.retune()
    assert len(plant.trained("more/retune.yaml")) == 3


def test_a_table_at_a_url_is_taken_over(plant: Plant):
    files = fsspec.filesystem("memory")
    files.pipe("/retuning/a/1.png", PNG + b"far")
    files.pipe("/retuning/labels.csv", b"path,label\na/1.png,scratched\n")
    plant.write_manifest("memory://retuning/labels.csv")
    plant.review("new")
    plant.retune()
    assert plant.trained("more/retune.yaml") == {"far": "scratched", "new": "good"}


@pytest.mark.parametrize("name", ["labels.jsonl", "pictures"])
def test_other_forms_of_more_are_taken_over(plant: Plant, name: str):
    made = plant.folder / "made"
    write_table(made, {"pictures/good/1.png": "made"}, ["path,label"])
    (made / "labels.jsonl").write_text('{"path": "pictures/good/1.png", "label": "good"}\n')
    plant.write_manifest(f"made/{name}")
    plant.review("new")
    plant.retune()
    assert plant.trained("more/retune.yaml") == {"made": "good", "new": "good"}


def test_what_fails_on_the_way_leaves_the_table_as_it_was(plant: Plant):
    [first] = plant.review("1")
    plant.export()
    plant.write_manifest("more/labels.csv")
    table = plant.folder / "more" / "labels.csv"
    content = table.read_bytes()
    [second] = plant.review("2")
    blocked = plant.folder / "more" / "pictures" / f"{second}.png"
    blocked.mkdir()
    for write in (plant.export, plant.retune):
        with pytest.raises(IsADirectoryError):
            write()
    blocked.rmdir()
    # What persons said of it cannot be read.
    plant.reviews.store.objects.put(f"reviews/bolts/{first}.json", b"{}")
    with pytest.raises(StoreError, match="label the picture again"):
        plant.export()
    assert table.read_bytes() == content
    assert plant.trained() == {"1": "good"}
