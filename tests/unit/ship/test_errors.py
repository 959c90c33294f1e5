"""Texts of errors that list many problems."""

import pytest

from ship.errors import DataError


def test_many_problems_that_differ_by_their_places_are_one_with_its_number() -> None:
    missing = [f"/data/{number}.png: no such file or folder" for number in range(1534)]
    error = DataError([*missing[:2], "labels.csv:7: no label", *missing[2:], "labels.csv:9: no label"])
    assert str(error).splitlines() == [
        "1536 problems:",
        "- /data/0.png, /data/1.png, /data/2.png, ... (1534 times): no such file or folder",
        "- labels.csv:7: no label",
        "- labels.csv:9: no label",
    ]
    assert len(error.problems) == 1536, "a program gets all of them"


@pytest.mark.parametrize("problem", ["no label", "labels.csv: no label"])
def test_identical_problems_are_one(problem: str) -> None:
    said = str(DataError([problem] * 1534))
    place = "labels.csv " if "csv" in problem else ""
    assert said == f"1534 problems:\n- {place}(1534 times): no label"


def test_few_alike_are_listed_each_and_different_ones_up_to_a_limit() -> None:
    alike = [f"{number}.png: dark" for number in range(3)]
    assert str(DataError(alike)).splitlines()[1:] == [f"- {problem}" for problem in alike]
    lines = str(DataError([f"problem {number}" for number in range(30)])).splitlines()
    assert (len(lines), lines[-1]) == (22, "- ... and 10 more")


def test_a_problem_that_repeats_a_whole_file_is_cut() -> None:
    error = DataError([f"unknown key {'x' * 100_000}", "short"])
    assert [len(problem) for problem in error.problems] == [2000, 5]
    assert error.problems[0].endswith("xx...")
