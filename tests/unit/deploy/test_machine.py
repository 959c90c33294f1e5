"""deploy/systemd, read by the programs that will run it, without any daemon."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.deploy.manifests import DEPLOY, check_command

SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here"
)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


def settings(unit: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"\w+=", line))


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
