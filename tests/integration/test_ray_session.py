"""A Ray of our own leaves neither processes nor unread exit statuses behind."""

import gc
import subprocess
import warnings

import psutil
import pytest
import ray

from orchestrator.cluster.session import ray_session


def test_every_process_is_waited_for_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray by itself drops a killed process without waiting if it takes longer than a second to end."""

    def wait_on_a_busy_machine(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is not None and timeout <= 1:
            raise subprocess.TimeoutExpired(process.args, timeout)
        return wait(process, timeout)

    wait = subprocess.Popen.wait
    before = set(psutil.Process().children())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ray_session(None) as session:
            assert session.is_own
            monkeypatch.setattr(subprocess.Popen, "wait", wait_on_a_busy_machine)
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []
    assert not ray.is_initialized()
    assert set(psutil.Process().children()) <= before
