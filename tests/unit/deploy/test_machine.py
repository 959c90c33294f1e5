"""deploy/compose and deploy/systemd, read by the programs that will run them, without any daemon."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli.main import cli
from tests.unit.deploy.manifests import DEPLOY

SYSTEMD, COMPOSE = DEPLOY / "systemd", DEPLOY / "compose"
UNITS = sorted(SYSTEMD.glob("*.service"))
SECRETS = dict.fromkeys(("STORE_KEY", "STORE_SECRET", "DATABASE_PASSWORD", "GRAFANA_PASSWORD"), "x")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here"
)
needs_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="docker-compose is not here"
)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


def settings(unit: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"\w+=", line))


def check_command(words: list[str]) -> None:
    """Check that ``ship`` takes these words; raises ``click.UsageError`` if it does not."""
    command = cli.commands[words[0]]
    with command.make_context(command.name, words[1:]) as context:
        assert context.params


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_exposes_little(unit: Path) -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit))
    assert done.returncode == 0, done.stdout[-500:]


@needs_systemd
def test_units_have_no_key_that_systemd_does_not_know(tmp_path: Path) -> None:
    program = tmp_path / "ship"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in [*UNITS, *SYSTEMD.glob("*.timer")]:
        text = unit.read_text().replace("/opt/ship/.venv/bin/ship", str(program))
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in SYSTEMD.glob("ship-*.[st]*")]
    done = run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_the_command_line_of_a_unit_is_one_of_ship(unit: Path) -> None:
    program, *words = settings(unit)["ExecStart"].split()
    assert program == "/opt/ship/.venv/bin/ship"
    check_command(words)


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


@needs_compose
def test_compose_reads_its_file() -> None:
    done = run("docker-compose", "-f", str(COMPOSE / "compose.yaml"), "config", "-q", **SECRETS)
    assert done.returncode == 0, done.stderr


@needs_compose
@pytest.mark.parametrize("name", SECRETS)
def test_compose_refuses_to_start_without_a_secret(name: str) -> None:
    rest = {key: value for key, value in SECRETS.items() if key != name}
    done = run("docker-compose", "-f", str(COMPOSE / "compose.yaml"), "config", "-q", **{**rest, name: ""})
    assert done.returncode != 0
    assert "see env.example" in done.stderr


def test_the_example_of_an_environment_names_the_secrets(composed: dict[str, Any]) -> None:
    named = re.findall(r"\$\{(\w+):\?", (COMPOSE / "compose.yaml").read_text())
    listed = [line for line in (COMPOSE / "env.example").read_text().splitlines() if not line.startswith("#")]
    assert set(named) == {line.rstrip("=") for line in listed} == set(SECRETS)


def test_every_file_that_a_container_mounts_is_there(composed: dict[str, Any]) -> None:
    mounted = [volume for service in composed["services"].values() for volume in service.get("volumes", ())]
    files = [volume.split(":")[0] for volume in mounted if volume.startswith(".")]
    assert files
    assert all((COMPOSE / path).exists() for path in files)


def test_ports_are_published_on_loopback_alone(composed: dict[str, Any]) -> None:
    ports = [port for service in composed["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_commands_of_ship_are_commands(composed: dict[str, Any]) -> None:
    for name in ("endpoint", "tune"):
        check_command(composed["services"][name]["command"])
