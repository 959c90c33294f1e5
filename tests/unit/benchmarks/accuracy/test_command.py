"""The command: rows, their file, more processes, a picture."""

import json
from pathlib import Path

import click
import pytest

from tests.benchmarks.__main__ import main


def measure(target: Path | str, *arguments: str) -> None:
    main(["accuracy", "--quick", *arguments, "--json", str(target)], standalone=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of two methods, the second of which was measured first."""
    file = tmp_path_factory.mktemp("accuracy") / "accuracy.json"
    measure(file, "--method", "ship")
    measure(file, "--method", "ship", "--method", "linear")
    return file


def test_a_run_resumes_from_its_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(file.read_text())["rows"]
    assert [row["method"] for row in rows] == ["linear", "ship"], "in the table's order"
    assert all(row["accuracies"] for row in rows)
    assert all(0.0 <= accuracy <= 1.0 for row in rows for accuracy in row["accuracies"])
    assert all(row["peak_bytes"] is None or row["peak_bytes"] > 0 for row in rows)
    before = file.read_bytes()
    measure(file, "--method", "linear", "--method", "ship")
    assert file.read_bytes() == before
    assert "mean rank" in capsys.readouterr().err


def test_a_file_of_another_protocol_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="name another file"):
        measure(file, "--method", "linear", "--seeds", "2")


def test_another_process_finds_the_same_and_a_picture_is_drawn(file: Path, tmp_path: Path) -> None:
    """One row is kept: each process takes seconds to import torch."""
    found = json.loads(file.read_text())
    other, picture = tmp_path / "other.json", tmp_path / "other.svg"
    other.write_text(json.dumps({**found, "rows": found["rows"][:1]}))
    measure(other, "--method", "linear", "--method", "ship", "--jobs", "2", "--picture", str(picture))
    again = json.loads(other.read_text())["rows"]
    assert [row["accuracies"] for row in again] == [row["accuracies"] for row in found["rows"]]
    text = picture.read_text()
    assert all(word in text for word in ("<svg", "faces", "linear", "ship", "mean rank"))


def test_json_goes_to_standard_output_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    measure("-", "--method", "linear")
    assert json.loads(capsys.readouterr().out)["rows"][0]["method"] == "linear"


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(click.UsageError, match=r"task wood: expected one of digits, .*gravel"):
        main(["accuracy", "--quick", "--task", "wood"], standalone=False)
