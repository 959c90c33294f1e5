from pathlib import Path

import pytest
import torch

from ship.pretrain.__main__ import main


@pytest.fixture(autouse=True)
def _leave_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(torch, "set_num_threads", lambda num: None)


@pytest.mark.parametrize("arguments", [["--help"], ["probe", "--help"]])
def test_help_shows_how_to_use_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 0
    assert "python -m ship.pretrain" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--minutes", "0"], ["--threads", "0"], ["--steps", "-1"]])
def test_senseless_options_are_refused_before_anything_is_written(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "new"), *option]) == 2

    assert "must be positive" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")

    assert main(["--out", str(tmp_path)]) == 2

    assert "--resume" in capsys.readouterr().err


def test_resuming_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--resume"]) == 2

    assert "expected a checkpoint" in capsys.readouterr().err


def test_probing_a_folder_without_a_backbone_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--backbone", str(tmp_path)]) == 2

    assert "expected config.json" in capsys.readouterr().err
