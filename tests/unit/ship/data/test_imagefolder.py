import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ship.data import DataSource, list_items
from ship.errors import DataError


def source(root: Path, **options: object) -> DataSource:
    return DataSource(path=str(root), **options)


def test_named_splits_are_kept(split_tree: Path) -> None:
    listing = list_items(source(split_tree))

    assert listing.format == "imagefolder"
    assert listing.labels == ("cat", "dog")
    assert listing.num_of_split == {"train": 6, "test": 4}
    assert [item.path for item in listing.of_split("test")] == [
        "test/cat/0.png",
        "test/cat/1.png",
        "test/dog/0.png",
        "test/dog/1.png",
    ]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_has_three_names(split_tree: Path, name: str) -> None:
    (split_tree / "test").rename(split_tree / name)

    assert list_items(source(split_tree)).num_of_split == {"train": 6, "val": 4}


def test_one_tree_is_split_by_class(tree: Path) -> None:
    listing = list_items(source(tree, val_fraction=0.1))

    assert listing.labels == ("ok", "scratch mark ü")
    for label in listing.labels:
        splits = sorted(item.split for item in listing.items if item.label == label)
        assert splits == ["test"] * 2 + ["train"] * 7 + ["val"]


def test_train_folder_alone_is_split(split_tree: Path) -> None:
    (split_tree / "test").rename(split_tree.parent / "elsewhere")

    assert list_items(source(split_tree)).num_of_split == {"train": 4, "test": 2}


def test_validation_is_cut_from_a_named_train_split(split_tree: Path) -> None:
    counts = list_items(source(split_tree, val_fraction=0.3)).num_of_split

    assert counts == {"train": 4, "val": 2, "test": 4}


def test_split_follows_the_seed_and_not_the_order_of_listing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list_items(source(tree))
    scandir = os.scandir

    @contextmanager
    def backwards(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    assert list_items(source(tree)) == first
    assert list_items(source(tree, split_seed=1)) != first


def test_a_class_of_two_gives_one_for_testing_and_of_one_none(
    tree: Path, write_image: Callable[..., Path]
) -> None:
    write_image(tree / "pair" / "a.png")
    write_image(tree / "pair" / "b.png")
    write_image(tree / "single" / "a.png")

    items = list_items(source(tree, test_fraction=0.01, val_fraction=0.01)).items
    assert sorted(item.split for item in items if item.label == "pair") == ["test", "train"]
    assert [item.split for item in items if item.label == "single"] == ["train"]


def test_what_is_left_out_is_counted_and_named(tree: Path, write_image: Callable[..., Path]) -> None:
    before = list_items(source(tree))
    write_image(tree / "ok" / "._0.png")
    write_image(tree / "ok" / ".draft.png")
    write_image(tree / ".cache" / "x.png")
    write_image(tree / "ok" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg")
    write_image(tree / "overview.png")
    (tree / "ok" / "notes.txt").write_text("x")
    (tree / "README.md").write_text("x")
    os.mkfifo(tree / "ok" / "pipe.png")

    listing = list_items(source(tree))
    assert listing.items == before.items
    assert [str(entry) for entry in listing.passed_over] == [
        "2 files that are no pictures (README.md, ok/notes.txt)",
        "3 folders and files of the system (.cache, ok/._0.png, ok/@eaDir)",
        "1 hidden files (ok/.draft.png)",
        "1 pictures outside of the class folders (overview.png)",
        "1 pipes or devices (ok/pipe.png)",
    ]


def test_images_in_folders_below_the_class(tree: Path, write_image: Callable[..., Path]) -> None:
    write_image(tree / "ok" / "line 2" / "monday" / "x.JPEG")

    assert "ok/line 2/monday/x.JPEG" in {i.path for i in list_items(source(tree)).items if i.label == "ok"}


def test_links_are_followed_and_loops_end(tree: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a").symlink_to(tree / "ok")
    (linked / "b").symlink_to(tree / "ok")
    (tree / "ok" / "loop").symlink_to(linked)

    listing = list_items(source(linked))
    assert listing.labels == ("a", "b")
    assert {"a/0.png", "b/0.png"} <= {item.path for item in listing.items}


def test_whole_number_classes_are_sorted_by_value(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for label in ("10", "9", "1"):
        write_image(tmp_path / label / "a.png")
        write_image(tmp_path / label / "b.png")

    assert list_items(source(tmp_path)).labels == ("1", "9", "10")


def test_a_class_may_be_called_train(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for label in ("train", "bus"):
        for number in range(2):
            write_image(tmp_path / label / f"{number}.png")

    assert list_items(source(tmp_path)).labels == ("bus", "train")


def test_every_class_without_an_image_is_named(tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "texts").mkdir()
    (tree / "texts" / "a.txt").write_text("x")

    with pytest.raises(DataError) as caught:
        list_items(source(tree))
    assert caught.value.problems == (
        f"{tree}/empty: class 'empty' has no image",
        f"{tree}/texts: class 'texts' has no image",
    )


def test_test_class_that_was_never_trained(split_tree: Path, write_image: Callable[..., Path]) -> None:
    write_image(split_tree / "test" / "cow" / "a.png")

    with pytest.raises(DataError, match="class 'cow' has no training image"):
        list_items(source(split_tree))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/a", "train/b", "val/a", "valid/a"], "expected one folder of validation images"),
        (["train/a", "train/b", "test/a", "extra/a"], "also found extra"),
        (["test/a", "test/b"], "found test but no train folder"),
        (["only"], "expected at least 2 classes, found 1: only"),
    ],
)
def test_layouts_that_cannot_be_told(
    tmp_path: Path, write_image: Callable[..., Path], folders: list[str], message: str
) -> None:
    for folder in folders:
        write_image(tmp_path / folder / "0.png")
        write_image(tmp_path / folder / "1.png")

    with pytest.raises(DataError, match=message):
        list_items(source(tmp_path))


def test_nothing_held_out(tree: Path) -> None:
    with pytest.raises(DataError, match="no images held out for testing; set test_fraction above 0"):
        list_items(source(tree, test_fraction=0.0))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list_items(source(tmp_path / "missing"))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected one folder per class, found none"):
        list_items(source(tmp_path))


def test_mvtec_is_recognised_and_split_anew(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for number in range(10):
        write_image(tmp_path / "train" / "good" / f"{number}.png")
    for kind in ("good", "crack", "hole"):
        for number in range(5):
            write_image(tmp_path / "test" / kind / f"{number}.png")
            write_image(tmp_path / "ground_truth" / kind / f"{number}_mask.png")

    listing = list_items(source(tmp_path))
    assert listing.format == "mvtec"
    assert listing.labels == ("crack", "good", "hole")
    assert listing.num_of_split == {"train": 20, "test": 5}
    assert not any("ground_truth" in item.path for item in listing.items)
    assert list_items(source(tmp_path, format="mvtec")) == listing


def test_mvtec_of_another_layout(split_tree: Path) -> None:
    with pytest.raises(DataError, match=r"expected train/good and test/ .* found in train: cat, dog"):
        list_items(source(split_tree, format="mvtec"))
