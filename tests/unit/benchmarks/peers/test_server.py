"""A server's tree of processes is measured and stopped as a whole."""

import sys
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.serve.peers.server import Server, ServerError, running, wait_until

# Prints the id of a child that ignores SIGTERM, and waits; the parent ends at SIGTERM without it.
_PARENT = """
import subprocess, sys, time
child = "from signal import *; signal(SIGTERM, SIG_IGN); print('up', flush=True); pause()"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(600)
"""


def test_no_process_below_a_server_is_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running([sys.executable, "-c", _PARENT], {}, log) as server:
        wait_until(lambda: log.read_text().endswith("\n"), server, log)
        child = psutil.Process(int(log.read_text()))
        assert [process.pid for process in server.tree()][1:] == [child.pid]
        assert server.memory_bytes() > child.memory_full_info().pss > 0
        assert server.cpu_s() > 0
    assert not server.is_alive
    assert not Server(child).is_alive


def test_a_server_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running([sys.executable, "-c", "raise SystemExit('no such port')"], {}, log) as server,
        pytest.raises(ServerError, match="no such port"),
    ):
        wait_until(lambda: False, server, log)


def test_a_server_has_no_settings_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIP_HOME", "elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    log = tmp_path / "log"
    code = "import os; print(os.environ.get('SHIP_HOME'), os.environ.get('OMP_NUM_THREADS'), flush=True)"
    with (
        running([sys.executable, "-c", code], {"OMP_NUM_THREADS": "3"}, log) as server,
        pytest.raises(ServerError, match="None 3"),
    ):
        wait_until(lambda: False, server, log)
