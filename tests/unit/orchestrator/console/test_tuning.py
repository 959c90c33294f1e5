"""A tuning that a page starts is a process of its own, and what it says is kept."""

import threading
from pathlib import Path

import pytest

from orchestrator.console.tuning import check_no_run, last_words, start_tuning
from orchestrator.errors import ExecutionError
from orchestrator.settings import Settings
from orchestrator.train.run.folder import hold_run

PATIENCE_S = 120.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({}, home=str(tmp_path / "home"))


def test_why_it_ended_is_kept(settings: Settings, tmp_path: Path) -> None:
    manifest = tmp_path / "retune.yaml"
    manifest.write_text("backbone: bundled\ntasks:\n  - {name: bolts, data: nowhere, epoch: 3}\n")
    assert last_words(tmp_path) == ""
    start_tuning(settings, manifest)
    for thread in threading.enumerate():
        if thread.name == "tuning":
            thread.join(PATIENCE_S)
    assert "epoch (line 3): unknown key" in last_words(tmp_path)


def test_one_run_at_a_time(settings: Settings) -> None:
    check_no_run(settings)
    with (
        hold_run(settings.home, "tune-1", "lines.yaml"),
        pytest.raises(ExecutionError, match=r"tune-1 is at work .* wait for its end"),
    ):
        check_no_run(settings)
