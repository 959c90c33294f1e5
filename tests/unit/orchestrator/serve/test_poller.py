"""A poller whose look hangs is replaced."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.registry.catalog_writer import CatalogChange
from orchestrator.serve.poller import CatalogPoller, Look


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


class Writer:
    """A catalog writer that finds what it is told to."""

    def __init__(self) -> None:
        self.change = CatalogChange()

    def update(self, *, looks_at_rollouts: bool) -> CatalogChange:
        return self.change


def test_what_is_broken_of_a_task_is_counted_and_said_once_and_no_look_fails_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    writer = Writer()
    look = Look(writer)
    writer.change = CatalogChange(problems={"bolts": "its alias is broken"}, missing=("nuts",))
    assert [look() for _ in range(3)] == [None] * 3
    assert look.num_broken == 2
    assert "bolts: its alias is broken" in str(look.problem)
    assert len(caplog.records) == 1
    writer.change = CatalogChange()
    look()
    assert (look.num_broken, look.problem) == (0, None)
