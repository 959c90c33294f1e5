"""Output and exit status of ``ship doctor``; its checks are tested by themselves."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from tests.unit.orchestrator.cli.factory import WorldOutput
from tests.unit.orchestrator.registry.factory import World, make_bolts


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in {"SHIP_HOME": tmp_path / "home", "SHIP_CACHE": tmp_path / "cache"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("SHIP_STORE", "memory://store")
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "SHIP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return make_bolts()


def run(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments], obj=WorldOutput(world))


def test_rows_as_text_and_as_json(world: World) -> None:
    # In memory no artifact is in the store, and no endpoint has written a catalog.
    told = json.loads(run(world, "--json").stdout)
    assert told["warned"] == sum(row["state"] == "warn" for row in told["rows"]) > 0
    assert told["ok"] == (told["failed"] == 0)
    assert {"check", "what", "state", "found", "expected", "advice"} == told["rows"][0].keys()
    done = run(world)
    assert done.exit_code == (0 if told["ok"] else 1)
    assert "do: ship token create NAME --predict 'line-1-*'" in done.stdout
    assert f"{told['warned']} warn, {told['failed']} fail" in done.stdout


def test_failures_end_with_status_1_and_warnings_only_if_strict(world: World) -> None:
    world.objects.stored["tokens.json"] = b"{", 1.0
    broken = run(world, "--json")
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["ok"] is False
    del world.objects.stored["tokens.json"]
    lenient, strict = run(world, "--json"), run(world, "--strict", "--json")
    rows = json.loads(lenient.stdout)["rows"]
    assert [row for row in rows if row["state"] == "fail"] == []
    assert (lenient.exit_code, strict.exit_code) == (0, 1)
