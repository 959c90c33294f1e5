"""A poller whose look hangs is replaced."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.serve.poller import CatalogPoller


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_poller_that_hangs_in_its_registry_is_not_healthy(tmp_path: Path, silent_port: int):
    uri = f"postgresql+psycopg://me@127.0.0.1:{silent_port}/db"
    poller = CatalogPoller(uri, str(tmp_path), poll_s=3600.0, limit_s=0.0)
    while (problem := poller.problem()) is None or "not ended" not in problem:
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="a look at the registry has not ended"):
        poller.check_health()
    assert poller.look_age_s() >= 0.0
