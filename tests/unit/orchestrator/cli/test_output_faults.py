"""What a command says when what it prints or writes finds no place: no traceback, and nothing by halves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.exchange import _write_folder

MAIN = (sys.executable, "-c", "from orchestrator.cli.main import main; main()")


@pytest.mark.parametrize("arguments", [("schema",), ("runs",), ("runs", "--json")])
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*MAIN, "--home", str(tmp_path), *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    said = done.stderr.splitlines()
    assert (done.returncode, said) == (1, ["error: what is written or printed: No space left on device"])


def test_without_a_standard_output_a_command_runs_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [*MAIN, "--home", str(tmp_path), "runs"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        preexec_fn=lambda: os.close(1),
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("place", [".", "link", "new", "new/er"])
def test_an_adapter_is_written_into_an_empty_folder_whatever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if place == "link":
        (tmp_path / "there").mkdir()
        Path("link").symlink_to(tmp_path / "there")
    target = Path(place).resolve()
    _write_folder(target, {"labels.txt": b"good", "adapter_config.json": b"{}"})
    assert sorted(path.name for path in target.iterdir()) == ["adapter_config.json", "labels.txt"]
    assert (target / "labels.txt").read_bytes() == b"good"
