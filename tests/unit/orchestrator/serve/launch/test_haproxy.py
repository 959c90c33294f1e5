"""HAProxy is started by a script that puts the ports on which it tells about itself on loopback."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.launch.haproxy import haproxy_ingress

PREFIX = "RAY_SERVE_HAPROXY_"


@pytest.fixture
def haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program in place of HAProxy that writes down its arguments."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    # Undone at the end, with all that the ingress sets.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    program = tmp_path / "a haproxy's"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
    program.chmod(0o700)
    os.environ[f"{PREFIX}BINARY_PATH"] = str(program)
    return program


def test_its_own_ports_are_on_loopback_and_no_other_line_changes(haproxy: Path, tmp_path: Path) -> None:
    # Ray Serve puts the node into the name that it was told.
    file = tmp_path / "haproxy of a node.cfg"
    with haproxy_ingress(None):
        stats, metrics = (int(os.environ[f"{PREFIX}{name}_PORT"]) for name in ("STATS", "METRICS"))
        line = "frontend f\n    bind {}:{}\n"
        others = line.format("*", 8000) + line.format("10.0.0.7", stats) + f"# bind *:{stats}\n"
        file.write_text(line.format("", metrics) + line.format("*", stats) + others)
        starter = os.environ[f"{PREFIX}BINARY_PATH"]
        words = ["-db", "-f", str(file), "-sf", "1"]
        done = subprocess.run([starter, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(haproxy), *words]
    assert file.read_text() == line.format("127.0.0.1", metrics) + line.format("127.0.0.1", stats) + others


def test_a_program_that_cannot_be_started_is_none(haproxy: Path) -> None:
    haproxy.chmod(0o600)
    with pytest.raises(ServeError, match="no HAProxy"), haproxy_ingress(None):
        pass
