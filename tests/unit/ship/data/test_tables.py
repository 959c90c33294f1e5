import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ship.data import DataSource, list_items
from ship.data.more_table import read_more
from ship.data.table_items import MAX_PROBLEMS, MAX_ROWS, MAX_TABLE_BYTES
from ship.data.tables import MAX_LINE_CHARS
from ship.errors import DataError


def write_csv(root: Path, *lines: str) -> DataSource:
    path = root / "data.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataSource(path=str(path))


def problems_of(source: DataSource) -> list[str]:
    with pytest.raises(DataError) as caught:
        list_items(source)
    return [problem.removeprefix(f"{source.path}: ") for problem in caught.value.problems]


def test_csv_with_splits(tmp_path: Path) -> None:
    listing = list_items(
        write_csv(
            tmp_path,
            "\ufeffpath,label,split,camera",
            'a/1.png,"dent, deep",train,7',
            "./a/2.png, ok ,train,7",
            "b 3.png,ok,validation,7",
            f"{tmp_path}/c.png,ok,test,7",
        )
    )

    assert listing.format == "csv"
    assert listing.labels == ("dent, deep", "ok")
    assert [(item.path, item.split) for item in listing.items] == [
        ("a/1.png", "train"),
        ("a/2.png", "train"),
        ("b 3.png", "val"),
        ("c.png", "test"),
    ]


def test_csv_without_splits_is_split(tmp_path: Path) -> None:
    rows = [f"{label}/{number}.png,{label}" for label in ("2", "10") for number in range(5)]

    listing = list_items(write_csv(tmp_path, "path,label", *rows))
    assert listing.labels == ("2", "10")
    assert listing.num_of_split == {"train": 8, "test": 2}


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    source = write_csv(
        tmp_path,
        "path,label,split",
        "a.png,x,train",
        "b.png,,train",
        ",y,train",
        "../up.png,y,train",
        "/etc/passwd,y,train",
        "a.png,y,test",
        "c.png,y,later",
        "d.png,y,",
        "e.png,y,train,more",
        "f.png,y",
    )

    assert problems_of(source) == [
        "line 3: label is empty",
        "line 4: path is empty",
        f"line 5: path '../up.png': leads out of {tmp_path}; set image_root to {tmp_path.parent}",
        f"line 6: path '/etc/passwd': leads out of {tmp_path}; set image_root to /",
        "line 7: path 'a.png' was already in line 2",
        "line 8: split: expected one of train, training, trn, val, valid, validation, dev, development, "
        "test, testing, tst, holdout, got 'later'",
        "line 9: split is empty",
        "line 10: more cells than columns; put quotes around text with commas",
        "line 11: split is empty",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file"),
        (b"path:label\na.png:x\n", "found 'path:label'"),
        (b"path,label,path\n", "column 'path' is there more than once"),
        (b"path,label\n", "no rows"),
        (b"path,label\n\xff\xfe,x\n", "expected UTF-8 text"),
        (b'path,label\n"a.png,x\n', "line 2: unexpected end of data"),
    ],
)
def test_files_that_are_no_such_table(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "data.csv").write_bytes(content)

    assert message in "\n".join(problems_of(DataSource(path=str(tmp_path / "data.csv"))))


def test_image_root(tmp_path: Path) -> None:
    source = write_csv(tmp_path, "path,label", "/images/a.png,x", "b.png,x", "c.png,y", "d.png,y")
    rooted = DataSource(path=source.path, image_root="/images")

    assert [item.path for item in list_items(rooted).items] == ["a.png", "b.png", "c.png", "d.png"]


def test_missing_table(tmp_path: Path) -> None:
    assert problems_of(DataSource(path=str(tmp_path / "no.csv"))) == ["no such file or folder"]


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"path": ["a.png", "b.png", "c.png"], "label": [1, 0, 1], "split": ["train", "train", "val"]}
    )
    path = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(table, path)

    listing = list_items(DataSource(path=str(path)))
    assert listing.format == "parquet"
    assert listing.labels == ("0", "1")
    assert listing.num_of_split == {"train": 2, "val": 1}


def test_parquet_problems_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.png", None], "label": ["x", "y"]}), path)
    source = DataSource(path=str(path))
    assert problems_of(source) == ["row 2: path is empty"]

    path.write_bytes(b"PAR1 and so on")
    assert problems_of(source)[0].startswith("not a readable Parquet file")


def test_table_format_with_a_folder(tree: Path, write_image: Callable[..., Path]) -> None:
    assert problems_of(DataSource(path=str(tree), format="csv")) == [
        "expected a csv file, found a folder without a table metadata.csv or metadata.jsonl that has "
        "file_name and label"
    ]


@pytest.mark.parametrize(
    "labels", [("1", "01"), ("0", "00"), ("-1", "-01"), ("+1", "1"), ("7", "\uff17"), ("003", "a", "3")]
)
def test_labels_that_are_one_number_are_refused(tmp_path: Path, labels: tuple[str, ...]) -> None:
    rows = [f"{number}.png,{labels[number % len(labels)]}" for number in range(12)]
    [problem] = problems_of(write_csv(tmp_path, "path,label", *rows))
    assert problem.startswith("classes that are the same number: ")
    assert "'a'" not in problem


@pytest.mark.parametrize("labels", [("01", "10", "00"), ("1", "-1"), ("1a", "01a"), ("0", "")])
def test_labels_that_are_several_numbers_or_none_stay(tmp_path: Path, labels: tuple[str, ...]) -> None:
    rows = [f"{number}.png,{labels[number % len(labels)] or 'x'}" for number in range(12)]
    assert len(list_items(write_csv(tmp_path, "path,label", *rows)).labels) == len(labels)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("name", ["data.csv", "metadata.csv"])
def test_a_csv_file_with_any_ends_of_lines(tmp_path: Path, end: str, name: str) -> None:
    """In quotes they belong to the cell."""
    rows = [f'{number}.png;"of{end}{"xy"[number % 2]}";"1{end}2"' for number in range(10)]
    (tmp_path / name).write_bytes(end.join(["\ufeffpath;label;note", *rows, ""]).encode())
    path = tmp_path if name == "metadata.csv" else tmp_path / name
    listing = list_items(DataSource(path=str(path)))
    assert (listing.format, listing.labels) == ("csv", (f"of{end}x", f"of{end}y"))
    assert len(listing.items) == 10


def write_parquet(root: Path, **columns: object) -> DataSource:
    path = root / "data.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return DataSource(path=str(path))


def repeated(text: str, times: int) -> pyarrow.Array:
    """A column of one text, which takes kilobytes however often it is repeated."""
    places = pyarrow.array(np.zeros(times, dtype=np.int32))
    return pyarrow.DictionaryArray.from_arrays(places, [text])


def test_a_parquet_file_that_claims_too_many_rows_is_refused_unread(tmp_path: Path) -> None:
    source = write_parquet(tmp_path, path=repeated("a", MAX_ROWS + 1), label=repeated("b", MAX_ROWS + 1))
    assert Path(source.path).stat().st_size < 20_000
    assert problems_of(source) == [f"expected at most {MAX_ROWS} rows, found {MAX_ROWS + 1}"]


def test_a_parquet_file_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    texts = pyarrow.array([str(number) * 20_000_000 for number in range(7)])
    source = write_parquet(tmp_path, path=texts, label=pyarrow.array(["b"] * 7))
    assert Path(source.path).stat().st_size < 1_000_000
    assert "once unpacked" in problems_of(source)[0]
    # A column that is not read does not count.
    source = write_parquet(tmp_path, path=list("abcdefg"), label=list("aabbaab"), note=texts)
    assert len(list_items(source).items) == 7


def test_a_parquet_cell_that_rows_repeat_is_bounded(tmp_path: Path) -> None:
    """A megabyte, stored once, is a gigabyte in a thousand rows."""
    source = write_parquet(tmp_path, path=repeated("a", 1000), label=repeated("b" * 1_000_000, 1000))
    assert "expected at most 4096 bytes a cell, found 1000000" in problems_of(source)[0]


def test_nested_parquet_columns_are_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path, path=["a", "b"], label=[["x"] * 1000, []])
    assert "column 'label': expected text or numbers, found list<" in problems_of(source)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (",".join(["path", "label", *"x" * 999]), "expected at most 1000 columns, found 1001"),
        ("path,label\n" + "," * MAX_LINE_CHARS + "\n", "line 2: expected at most 1048576 characters a row"),
        ("path,label\n" + '"\n",' * MAX_LINE_CHARS, "expected at most 1048576 characters a row"),
        ("path,label\n" + "x" * 200_000 + ",y\n", "line 2: field larger than field limit"),
    ],
)
def test_csv_rows_and_columns_are_bounded(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.csv").write_text(content)
    assert message in "\n".join(problems_of(DataSource(path=str(tmp_path / "data.csv"))))


def test_problems_of_a_table_end_somewhere(tmp_path: Path) -> None:
    problems = problems_of(write_csv(tmp_path, "path,label", *["a.png,"] * 5000))
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == "the rest of the table was not read"


def test_a_table_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with path.open("wb") as file:
        # A hole, which takes no room on the disk.
        file.truncate(MAX_TABLE_BYTES + 1)
    assert f"expected at most {MAX_TABLE_BYTES} bytes" in problems_of(DataSource(path=str(path)))[0]


def test_names_that_are_no_utf_8_are_found_before_tuning(tmp_path: Path) -> None:
    for label in (b"gut", b"gr\xfcn"):
        folder = os.fsencode(tmp_path) + b"/" + label
        os.mkdir(folder)
        for number in range(5):
            Path(os.fsdecode(folder + b"/%d.png" % number)).write_bytes(b"")
    problems = problems_of(DataSource(path=str(tmp_path)))
    assert problems[0] == "'gr\\udcfcn': expected a name in UTF-8; rename the file or folder"


def test_a_table_of_further_images_with_all_its_columns(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    source = write_csv(
        tmp_path, "file_name;label;split;by;;note", "./b.png;ok;train;anna;x", 'a.png;bad;train;;;"1;2"'
    )
    first, second = read_more(source.path)
    assert (first.path, first.label, first.columns) == ("a.png", "bad", {"by": "", "note": "1;2"})
    assert (second.path, second.label, second.columns) == ("b.png", "ok", {"by": "anna", "note": ""})
    assert first.folder.read(first.path) == b"a"
    assert second.digest == hashlib.sha256(b"b").hexdigest()
    (tmp_path / "more.jsonl").write_text('{"path": "a.png", "label": "ok", "part": 7, "note": "x"}\n')
    [image] = read_more(str(tmp_path / "more.jsonl"), "part")
    assert (image.path, image.label, image.columns) == ("a.png", "ok", {"part": "7"})
    assert read_more(write_csv(tmp_path, "path,label").path) == ()
    for header, said in (("a,b", "column 'path' is missing"), ("", "column 'path' is missing")):
        with pytest.raises(DataError, match=said):
            read_more(write_csv(tmp_path, header).path)
