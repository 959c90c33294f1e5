"""Groups stay whole, and one file lies in one split."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ship.data import DataSource, Split, TaskData, describe_data, load_task_data
from ship.data.listing import list_items
from ship.errors import ConfigError, DataError
from ship.settings.search_config import MIN_IMAGES_TO_HOLD_OUT
from ship.tuning.folds import make_folds

PATTERN = r"part-(\d+)-"


def load(source: DataSource) -> TaskData:
    return load_task_data(source, image_size=(6, 6), interpolation="bicubic")


@pytest.fixture
def parts(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two classes of eight parts with three pictures each."""
    for label in ("bad", "ok"):
        for part in range(8):
            for view in range(3):
                seed = 100 * (label == "ok") + 10 * part + view
                write_image(
                    tmp_path / "parts" / label / f"part-{part + 8 * (label == 'ok')}-{view}.png", seed=seed
                )
    return tmp_path / "parts"


@pytest.mark.parametrize("seed", range(5))
def test_no_cut_divides_a_part(parts: Path, seed: int) -> None:
    source = DataSource(path=str(parts), group=PATTERN, val_fraction=0.2, split_seed=seed)
    listing = list_items(source)

    splits: dict[str | None, set[str]] = {}
    for item in listing.items:
        splits.setdefault(item.group, set()).add(item.split)
    assert len(splits) == 16
    assert all(len(found) == 1 for found in splits.values())
    # A fifth of 24 are five pictures a class: two parts of three.
    assert listing.num_of_split == {"train": 24, "val": 12, "test": 12}
    assert {item.label for item in listing.of_split("train")} == {"bad", "ok"}


def test_without_groups_a_cut_takes_what_it_took(parts: Path) -> None:
    assert list_items(DataSource(path=str(parts))).num_of_split == {"train": 38, "test": 10}


def test_a_table_names_groups_in_a_column(parts: Path) -> None:
    lines = [
        f"{p.relative_to(parts)},{p.parent.name},{p.name.split('-')[1]}" for p in sorted(parts.rglob("*.png"))
    ]
    table = parts / "list.csv"
    table.write_text("path,label,part\n" + "\n".join(lines))
    by_column, by_pattern = (list_items(DataSource(path=str(table), group=g)) for g in ("part", PATTERN))

    assert by_column.items == by_pattern.items
    with pytest.raises(DataError, match="is no column, and no regular expression with one group"):
        list_items(DataSource(path=str(table), group="prt"))
    table.write_text("path,label,part\n" + lines[0].rpartition(",")[0] + ",")
    with pytest.raises(DataError, match="line 2: part is empty"):
        list_items(DataSource(path=str(table), group="part"))


def test_a_given_split_that_divides_a_part_is_refused_by_name(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for number, split in enumerate(("train", "train", "test")):
        for label in ("a", "b"):
            part = 7 if label == "a" else number
            write_image(
                tmp_path / split / label / f"part-{part}-{number}.png", seed=2 * number + (label == "b")
            )

    assert len(list_items(DataSource(path=str(tmp_path))).items) == 6
    with pytest.raises(DataError, match=r"1 groups have images in more than one split: 7; move each"):
        list_items(DataSource(path=str(tmp_path), group=PATTERN))


def write_more(folder: Path, write_image: Callable[..., Path], rows: dict[str, str], column: str = "") -> str:
    """A table of further pictures: path to label, with a cell more where there is a column."""
    for seed, path in enumerate(rows):
        write_image(folder / path, seed=5000 + seed)
    lines = [f"{path},{label}" for path, label in rows.items()]
    (folder / "labels.csv").write_text("\n".join([f"path,label{column}", *lines]))
    return str(folder / "labels.csv")


def test_further_pictures_keep_their_groups_and_those_of_all_others(
    parts: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    plain = DataSource(path=str(parts), group=PATTERN)
    trained = next(item for item in list_items(plain).items if item.split == "train")
    rows = {f"part-{trained.group}-9.png": trained.label, "8c0de.png": "ok", "part-99-0.png": "ok"}
    both = replace(plain, more=write_more(tmp_path / "more", write_image, rows))
    listing = list_items(both)

    assert listing.of_split("test") == list_items(plain).of_split("test")
    groups = {item.path: item.group for item in listing.items if item.path.startswith("more/")}
    assert groups == {
        # Its name tells none: it is one of its own.
        "more/8c0de.png": "more/8c0de.png",
        "more/part-99-0.png": "99",
        f"more/part-{trained.group}-9.png": trained.group,
    }
    data = load(both)
    for fold in make_folds(data, seed=0):
        assert fold.train.groups is not None
        assert fold.held_out.groups is not None
        assert not set(fold.train.groups) & set(fold.held_out.groups)


def test_a_further_picture_of_a_part_that_is_held_out_is_refused(
    parts: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    plain = DataSource(path=str(parts), group=PATTERN)
    tested = list_items(plain).of_split("test")[0]
    rows = {f"part-{tested.group}-9.png": tested.label}

    with pytest.raises(DataError, match=rf"`more` included, .*: {tested.group}; move each .* out of `more`"):
        list_items(replace(plain, more=write_more(tmp_path / "more", write_image, rows)))


@pytest.mark.parametrize("has_column", [True, False])
def test_further_pictures_name_groups_in_a_column_if_they_have_it(
    parts: Path, tmp_path: Path, write_image: Callable[..., Path], *, has_column: bool
) -> None:
    lines = [
        f"{p.relative_to(parts)},{p.parent.name},{p.name.split('-')[1]}" for p in sorted(parts.rglob("*.png"))
    ]
    (parts / "list.csv").write_text("path,label,part\n" + "\n".join(lines))
    rows = {"1.png": "ok,77", "2.png": "ok,77", "3.png": "ok,"} if has_column else {"1.png": "ok"}
    more = write_more(tmp_path / "more", write_image, rows, ",part" if has_column else "")
    listing = list_items(DataSource(path=str(parts / "list.csv"), group="part", more=more))

    found = {item.path: item.group for item in listing.items if item.path.startswith("more/")}
    told = {"more/1.png": "77", "more/2.png": "77", "more/3.png": "more/3.png"}
    assert found == (told if has_column else {"more/1.png": "more/1.png"})
    assert all(item.group for item in listing.items)


def test_without_groups_further_pictures_have_none(
    parts: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    more = write_more(tmp_path / "more", write_image, {"1.png": "ok,77"}, ",part")
    assert not any(item.group for item in list_items(DataSource(path=str(parts), more=more)).items)


def test_paths_without_a_part_are_named(parts: Path, write_image: Callable[..., Path]) -> None:
    write_image(parts / "ok" / "odd.png", seed=999)

    with pytest.raises(DataError, match=r"names no group in 1 paths: ok/odd\.png"):
        list_items(DataSource(path=str(parts), group=PATTERN))


@pytest.mark.parametrize("group", ["part-(", "(a)(b)", "", 3])
def test_a_wrong_pattern_is_refused(group: object) -> None:
    with pytest.raises(ConfigError, match="group: expected a column, or a regular expression with one group"):
        DataSource(path="x", group=group)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="allow_duplicates: expected true or false"):
        DataSource(path="x", allow_duplicates="yes")  # type: ignore[arg-type]


def test_folds_keep_parts_whole(parts: Path) -> None:
    data = load(DataSource(path=str(parts), group=PATTERN))
    folds = make_folds(data, seed=0)

    assert len(folds) == 3
    for fold in folds:
        assert fold.train.groups is not None
        assert fold.held_out.groups is not None
        assert not set(fold.train.groups) & set(fold.held_out.groups)
        assert set(fold.held_out.labels_B.tolist()) == {0, 1}
    assert sum(len(fold.held_out) for fold in folds) == len(data.train) < MIN_IMAGES_TO_HOLD_OUT


def test_groups_are_part_of_the_fingerprint(parts: Path) -> None:
    bare, grouped = (describe_data(DataSource(path=str(parts), group=g)) for g in (None, PATTERN))

    assert bare.fingerprint != grouped.fingerprint
    assert load(DataSource(path=str(parts), group=PATTERN)).fingerprint == grouped.fingerprint


def test_one_file_in_two_splits_is_refused_with_both_paths(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for seed, path in enumerate(("train/a/1", "train/b/1", "test/a/1", "test/b/1")):
        write_image(tmp_path / f"{path}.png", seed=seed)
    write_image(tmp_path / "test/b/2.png", seed=0)
    write_image(tmp_path / "train/a/again.png", seed=0)
    source, allowed = (DataSource(path=str(tmp_path), allow_duplicates=allow) for allow in (False, True))

    for read in (describe_data, load):
        with pytest.raises(DataError) as caught:
            read(source)
        assert [problem.removeprefix(f"{tmp_path}: ") for problem in caught.value.problems] == [
            "test/b/2.png (test) and train/a/1.png (train) are the same file",
            "test/b/2.png (test) and train/a/again.png (train) are the same file",
            "delete one of each pair, or set allow_duplicates: true",
        ]
    assert describe_data(allowed).num_repeated == 1
    assert describe_data(allowed).num_repeated_held_out == 0
    assert load(allowed).fingerprint == describe_data(allowed).fingerprint


def test_splits_are_joined_and_taken_from() -> None:
    def split(paths: tuple[str, ...], groups: tuple[str, ...] | None) -> Split:
        images = torch.arange(len(paths), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
        return Split(images_B3HW=images, labels_B=torch.arange(len(paths)), paths=paths, groups=groups)

    data = TaskData(
        labels=("a", "b"),
        train=split(("1", "2"), ("x", "y")),
        val=split(("3",), ("z",)),
        test=split(("4",), ("w",)),
        fingerprint="0" * 64,
    )
    merged = data.merged()
    assert (merged.train.paths, merged.train.groups, merged.val) == (("1", "2", "3"), ("x", "y", "z"), None)
    assert merged.train.labels_B.tolist() == [0, 1, 0]
    assert merged.merged() is merged
    taken = merged.train.take(torch.tensor([False, True, True]))
    assert (taken.paths, taken.groups, taken.labels_B.tolist()) == (("2", "3"), ("y", "z"), [1, 0])
