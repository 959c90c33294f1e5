import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.registry.registry import Registry
from orchestrator.registry.session import MlflowSession
from tests.integration.place import Place


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has made its tables in, which takes seconds: made once, copied for each test."""
    # The folder is made, too.
    path = tmp_path_factory.mktemp("mlflow") / "home" / "mlflow.db"
    assert MlflowSession(f"sqlite:///{path}", may_create=True).client is not None
    return path


@pytest.fixture
def place(tmp_path: Path, empty_database: Path) -> Iterator[Place]:
    with closing(Place(tmp_path, empty_database)) as place:
        yield place


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry on a port that no program listens on, with a password in its URI."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return Registry(f"http://user:very-secret@127.0.0.1:{port}")
