"""Layouts of public data sets and of exporters: read as what they are, or refused by name."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from ship.data import DataSource, describe_data, list_items
from ship.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def write(write_image: Write, tmp_path: Path) -> Callable[..., None]:
    """Writes a few pictures into each folder, below ``tmp_path``."""

    def fill(*folders: str, count: int = 4, ending: str = "png") -> None:
        for folder in folders:
            for number in range(count):
                write_image(tmp_path / folder / f"{number:03}.{ending}")

    return fill


@pytest.mark.parametrize(
    ("train", "held_out", "split"),
    [
        ("Train", "Test", "test"),
        ("Training", "Testing", "test"),
        ("TRAIN", "VAL", "val"),
        ("train", "dev", "val"),
        ("training", "Validation", "val"),
        ("training_set", "test_set", "test"),
        ("train_images", "test-images", "test"),
        ("trn", "holdout", "test"),
    ],
)
def test_splits_in_any_usual_spelling(
    write: Callable[..., None], tmp_path: Path, train: str, held_out: str, split: str
) -> None:
    write(f"{train}/good", f"{train}/bad", f"{held_out}/good", f"{held_out}/bad")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert listing.labels == ("bad", "good")
    assert listing.num_of_split == {"train": 8, split: 8}


def test_numbered_folders_are_no_splits(write: Callable[..., None], tmp_path: Path) -> None:
    write("train1", "test2")
    assert list_items(DataSource(path=str(tmp_path))).labels == ("test2", "train1")


def test_two_folders_of_one_split_are_refused(write: Callable[..., None], tmp_path: Path) -> None:
    write("train/a", "train/b", "Testing/a", "test/a")
    with pytest.raises(DataError, match="one folder of test images, found Testing, test"):
        list_items(DataSource(path=str(tmp_path)))


def test_folders_below_classes_that_look_like_the_classes(write: Callable[..., None], tmp_path: Path) -> None:
    write("2024/good", "2024/bad", "2025/good", "2025/bad")
    with pytest.raises(DataError, match=r"2024, 2025 hold no pictures .*\(bad, good\), which look like"):
        list_items(DataSource(path=str(tmp_path)))
    assert list_items(DataSource(path=str(tmp_path), format="imagefolder")).labels == ("2024", "2025")


def test_splits_below_classes_are_told(write: Callable[..., None], tmp_path: Path) -> None:
    write("good/train", "good/test", "bad/train", "bad/test")
    with pytest.raises(DataError, match="which look like splits"):
        list_items(DataSource(path=str(tmp_path)))


@pytest.mark.parametrize("beside", [("good", "bad"), ("scratch",)])
def test_a_split_beside_classes_is_no_class(
    write: Callable[..., None], tmp_path: Path, beside: tuple[str, ...]
) -> None:
    write("train/good", "train/bad", *beside)
    with pytest.raises(DataError, match=r"train hold no pictures but folders.*which look like the classes"):
        list_items(DataSource(path=str(tmp_path)))
    sure = list_items(DataSource(path=str(tmp_path), format="imagefolder"))
    assert sure.labels == tuple(sorted(["train", *beside]))


def test_a_class_with_pictures_may_be_called_train(write: Callable[..., None], tmp_path: Path) -> None:
    write("train", "truck")
    assert list_items(DataSource(path=str(tmp_path))).labels == ("train", "truck")


def test_folders_of_one_class_alone_are_no_doubt(write: Callable[..., None], tmp_path: Path) -> None:
    write("good/monday", "good/tuesday", "bad")
    assert list_items(DataSource(path=str(tmp_path))).labels == ("bad", "good")


def test_mvtec_3d(write: Callable[..., None], tmp_path: Path) -> None:
    write(
        "train/good/rgb", "train/good/gt", "test/good/rgb", "test/good/gt", "test/crack/rgb", "test/crack/gt"
    )
    write("test/crack/xyz", ending="tiff")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert (listing.format, listing.labels, len(listing.items)) == ("mvtec", ("crack", "good"), 12)
    assert all("/rgb/" in item.path for item in listing.items)
    assert [(entry.kind, entry.count) for entry in listing.passed_over] == [("masks or depth maps", 16)]


def test_mvtec_loco(write: Callable[..., None], tmp_path: Path) -> None:
    write("train/good", "validation/good", "test/good", "test/logical_anomalies")
    write("ground_truth/logical_anomalies/000", count=1)
    listing = list_items(DataSource(path=str(tmp_path)))
    assert (listing.format, listing.labels, len(listing.items)) == (
        "mvtec",
        ("good", "logical_anomalies"),
        16,
    )
    assert [(entry.kind, entry.count) for entry in listing.passed_over] == [("masks or depth maps", 1)]


@pytest.mark.parametrize("root", ["", "Data/"])
def test_visa(write: Callable[..., None], tmp_path: Path, root: str) -> None:
    write(f"{root}Images/Normal", f"{root}Images/Anomaly", f"{root}Masks/Anomaly")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert (listing.format, listing.labels, len(listing.items)) == ("visa", ("Anomaly", "Normal"), 8)
    assert [(entry.kind, entry.count) for entry in listing.passed_over] == [("masks or depth maps", 4)]


def test_anomalib_folder(write: Callable[..., None], tmp_path: Path) -> None:
    write("good", "crack", "mask/crack")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert listing.labels == ("crack", "good")
    assert [(entry.kind, entry.count) for entry in listing.passed_over] == [("masks or depth maps", 4)]


def test_masks_below_a_class(write: Callable[..., None], tmp_path: Path) -> None:
    write("good", "crack", "crack/masks")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert len(listing.items) == 8
    assert [(entry.kind, entry.count) for entry in listing.passed_over] == [("masks or depth maps", 4)]


def test_a_class_may_be_called_mask(write: Callable[..., None], tmp_path: Path) -> None:
    write("mask", "no_mask")
    assert list_items(DataSource(path=str(tmp_path))).labels == ("mask", "no_mask")


def test_pictures_are_known_by_their_content_too(write: Callable[..., None], tmp_path: Path) -> None:
    write("good", "bad")
    (tmp_path / "good" / "000.png").rename(tmp_path / "good" / "DSC0001")
    (tmp_path / "good" / "001.png").rename(tmp_path / "good" / "one.apng")
    (tmp_path / "good" / "002.png").rename(tmp_path / "good" / "note.txt")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert len(listing.items) == 7
    assert [str(entry) for entry in listing.passed_over] == ["1 files that are no pictures (good/note.txt)"]


def test_a_hidden_class_is_refused(write: Callable[..., None], tmp_path: Path) -> None:
    write(".5mm", "1mm", "2mm")
    with pytest.raises(DataError, match=r"\.5mm: a hidden folder with pictures .*; rename it if"):
        list_items(DataSource(path=str(tmp_path)))


def test_one_name_in_two_unicode_forms_is_one_class(write: Callable[..., None], tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Gehäuse") for form in ("NFC", "NFD"))
    write(f"train/{composed}", "train/b", f"test/{decomposed}", "test/b")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert (
        listing.labels == (composed, "b") or listing.labels == ("b", composed) or composed in listing.labels
    )
    assert listing.num_of_split == {"train": 8, "test": 8}


@pytest.mark.parametrize("twin", ["b\u0430d", "bad\u200b", "\uff42ad"])
def test_classes_that_look_alike_are_one_problem(
    write: Callable[..., None], tmp_path: Path, twin: str
) -> None:
    write("bad", "good", twin)
    with pytest.raises(DataError, match=r"classes that look alike: .*U\+0062 U\+0061 U\+0064") as caught:
        list_items(DataSource(path=str(tmp_path)))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(write: Callable[..., None], tmp_path: Path, delimiter: str) -> None:
    lines = [["File_Name", "Label", "split"], ["a 1.png", "x", "Training"], ["b.png", "y", "TRAIN"]]
    lines += [["c.png", "x", "dev"], ["d.png", "y", "Test"]]
    table = tmp_path / ("t.tsv" if delimiter == "\t" else "t.csv")
    table.write_text("\n".join(delimiter.join(line) for line in lines))
    listing = list_items(DataSource(path=str(table)))
    assert [(item.path, item.label, item.split) for item in listing.items] == [
        ("a 1.png", "x", "train"),
        ("b.png", "y", "train"),
        ("c.png", "x", "val"),
        ("d.png", "y", "test"),
    ]


def test_a_table_in_a_folder_beside_its_pictures(write: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    rows = [f"../images/{label}/{number}.png,{label}" for label in "xy" for number in range(4)]
    (tmp_path / "ann" / "t.csv").write_text("\n".join(["path,label", *rows]))
    source = DataSource(path=str(tmp_path / "ann" / "t.csv"))
    with pytest.raises(DataError) as caught:
        list_items(source)
    advice = caught.value.problems[0].partition("set image_root to ")[2]
    assert advice == str(tmp_path)
    listing = list_items(DataSource(path=source.path, image_root=advice))
    assert listing.items[0].path == "images/x/0.png"


def test_hugging_face_metadata(write: Callable[..., None], tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(split)
        lines = [{"file_name": f"{number:03}.png", "label": "xy"[number % 2]} for number in range(4)]
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    listing = list_items(DataSource(path=str(tmp_path)))
    assert (listing.format, listing.labels) == ("jsonl", ("x", "y"))
    assert listing.num_of_split == {"train": 4, "test": 4}
    assert listing.items[0].path == "test/000.png"


def test_hugging_face_metadata_without_labels_leaves_the_classes(
    write: Callable[..., None], tmp_path: Path
) -> None:
    write("x", "y")
    (tmp_path / "metadata.csv").write_text("file_name,caption\nx/000.png,a cap\n")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert listing.format == "imagefolder"
    assert [str(entry) for entry in listing.passed_over] == ["1 files that are no pictures (metadata.csv)"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_pictures_that_a_table_of_the_folder_does_not_name_are_counted(
    write: Callable[..., None], tmp_path: Path, name: str
) -> None:
    write("x", "y", ".kept")
    (tmp_path / "notes.txt").write_text("of May")
    rows = [(f"{label}/{number:03}.png", label) for label in "xy" for number in range(3)]
    rows.append((".kept/000.png", "x"))
    lines = [json.dumps({"file_name": path, "label": label}) for path, label in rows]
    if name == "metadata.csv":
        lines = ["file_name,label", *map(",".join, rows)]
    (tmp_path / name).write_text("\n".join(lines))
    listing = list_items(DataSource(path=str(tmp_path)))
    assert len(listing.items) == 7
    assert [str(entry) for entry in listing.passed_over] == [
        "1 files that are no pictures (notes.txt)",
        "3 hidden files (.kept/001.png, .kept/002.png, .kept/003.png)",
        "2 pictures that no table names (x/003.png, y/003.png)",
    ]


def test_pictures_of_a_split_without_a_table_are_counted(write: Callable[..., None], tmp_path: Path) -> None:
    write("train", "test")
    lines = [f"{number:03}.png,{'xy'[number % 2]}" for number in range(4)]
    (tmp_path / "train" / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    with pytest.raises(DataError, match="no images held out"):
        list_items(DataSource(path=str(tmp_path), test_fraction=0.0))
    (tmp_path / "metadata.csv").write_text("file_name,label\ntest/000.png,x\ntest/001.png,y\n")
    listing = list_items(DataSource(path=str(tmp_path)))
    assert [str(entry) for entry in listing.passed_over] == [
        "2 pictures that no table names (test/002.png, test/003.png)"
    ]


def _manifest_line(path: str, name: str) -> str:
    details = {"class-name": name, "type": "groundtruth/image-classification", "human-annotated": "yes"}
    return json.dumps({"source-ref": path, "anomaly-label": 1, "anomaly-label-metadata": details})


def test_a_manifest_of_lookout_for_vision(write: Callable[..., None], tmp_path: Path) -> None:
    urls = [
        f"memory://bucket/line 1/{name}/{number}.png" for name in ("normal", "anomaly") for number in range(4)
    ]
    lines = [_manifest_line(url, url.split("/")[-2]) for url in urls]
    (tmp_path / "train.manifest").write_text("\n".join(lines))
    listing = list_items(DataSource(path=str(tmp_path / "train.manifest")))
    assert (listing.format, listing.labels) == ("jsonl", ("anomaly", "normal"))
    assert listing.items[0].path == "anomaly/0.png"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "b.png", "label": 1.5}', "line 2: label: expected text or a whole number, got '1.5'"),
        ('{"file_name": "b.png", "label": null}', "line 2: label is empty"),
        ('{"file_name": "b.png", "label": ["x"]}', "line 2: label: expected text or a whole number"),
        ('{"file_name": "b.png"', "line 2: expected a JSON object"),
        ("[1]", "line 2: expected a JSON object, found list"),
    ],
)
def test_a_line_of_another_type_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"file_name": "a.png", "label": "x"}\n' + line)
    with pytest.raises(DataError) as caught:
        list_items(DataSource(path=str(tmp_path / "t.jsonl")))
    assert message in caught.value.problems[0]
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("odd", ["nan", "None", "3.0", "1e2"])
def test_a_label_that_is_no_number_where_the_others_are(tmp_path: Path, odd: str) -> None:
    (tmp_path / "t.csv").write_text(f"path,label\na.png,0\nb.png,1\nc.png,{odd}\nd.png,{odd}\n")
    with pytest.raises(DataError, match=r"line 4: label: expected a whole number .* \(2 rows\)"):
        list_items(DataSource(path=str(tmp_path / "t.csv")))


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.png,none\nb.png,scratch\nc.png,none\nd.png,scratch\n")
    assert list_items(DataSource(path=str(tmp_path / "t.csv"))).labels == ("none", "scratch")


def test_a_table_that_names_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,x\nb.png,y\nc.png,x\nd.png,y\n")
    with pytest.raises(DataError, match=r"a\.png: expected a regular file"):
        describe_data(DataSource(path=str(tmp_path / "t.csv")))
