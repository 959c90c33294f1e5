"""What the console command says and which status it ends with; what the commands do is tested elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import cli, main
from tests.factories import write_backbone, write_stripes


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ship", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("SHIP_HOME", "SHIP_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    write_backbone(tmp_path / "backbone")
    write_stripes(tmp_path / "lines" / "a")
    (tmp_path / "manifest.yaml").write_text(
        "backbone: ./backbone\ntasks:\n- {name: a, data: lines/a, config: {epochs: 3, num_independent: 4}}\n"
    )
    return tmp_path


def test_plan_says_what_would_be_done_and_writes_nothing(
    plant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(plant.rglob("*"))
    assert run(monkeypatch, "plan", "manifest.yaml", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(task["name"], task["action"], task["num_images"]) for task in planned["tasks"]] == [
        ("a", "tune", 24)
    ]
    assert run(monkeypatch, "plan", "manifest.yaml") == 0
    assert "1 to tune, 0 in the store already" in capsys.readouterr().out
    assert sorted(plant.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--wrong"], "No such option"),
        (["tune"], "Missing argument"),
        (["tune", "m.yaml", "--workers", "0"], "workers"),
        (["launch"], "No such command"),
        (["promote", "a", "zero"], "zero"),
        (["plan", "nowhere.yaml"], "nowhere.yaml"),
        (["show", "../a"], "task name '../a'"),
        (["serve", "--port", "99999"], "99999"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_clear_error(
    plant: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
    assert not (plant / ".ship").exists()


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_help_with_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    printed = capsys.readouterr().out
    assert "Example" in printed
    assert f"ship {command}" in printed or "ship --store" in printed


def test_help_loads_no_heavy_package() -> None:
    code = "import sys, orchestrator.cli; print([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
