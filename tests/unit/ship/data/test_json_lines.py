"""The columns of JSON lines are those of all lines."""

import json
from pathlib import Path

import pytest

from ship.data import DataSource, list_items
from ship.data.items import Listing
from ship.errors import DataError


def list_lines(folder: Path, rows: list[dict[str, str]], group: str | None = None) -> Listing:
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list_items(DataSource(path=str(path), group=group))


def make_rows() -> list[dict[str, str]]:
    return [{"file_name": f"{number}.png", "label": "xy"[number % 2]} for number in range(12)]


@pytest.mark.parametrize("first_without", [True, False])
def test_a_split_that_some_lines_lack_is_refused_with_each_of_them(
    tmp_path: Path, first_without: bool
) -> None:
    rows = [row | ({"split": "test"} if number >= 9 else {}) for number, row in enumerate(make_rows())]
    with pytest.raises(DataError) as caught:
        list_lines(tmp_path, rows if first_without else rows[::-1])
    lacking = range(1, 10) if first_without else range(4, 13)
    assert caught.value.problems == tuple(
        f"{tmp_path}/list.jsonl: line {number}: split is empty" for number in lacking
    )


def test_a_group_that_the_first_line_lacks_is_missed_there(tmp_path: Path) -> None:
    rows = [row | ({"part": row["file_name"]} if number else {}) for number, row in enumerate(make_rows())]
    with pytest.raises(DataError, match="line 1: part is empty"):
        list_lines(tmp_path, rows, "part")


def test_a_column_of_no_line_is_none(tmp_path: Path) -> None:
    assert list_lines(tmp_path, make_rows()).num_of_split == {"train": 10, "test": 2}


def test_labels_that_the_first_line_of_metadata_lacks_are_not_those_of_the_folders(tmp_path: Path) -> None:
    lines = [{"file_name": "a/0.png"}, {"file_name": "b/1.png", "label": "b"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match="line 1: label is empty"):
        list_items(DataSource(path=str(tmp_path)))


def test_a_first_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{'path'\n" + "\n".join(map(json.dumps, make_rows())))
    with pytest.raises(DataError, match="line 1: expected a JSON object"):
        list_items(DataSource(path=str(tmp_path / "t.jsonl")))


def test_what_the_first_line_has_is_told_where_no_line_has_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected lines with file_name .* found 'image', 'path'"):
        list_lines(tmp_path, [{"path": "a.png", "image": "x"}])
