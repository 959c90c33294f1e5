"""Writing to MLflow is tried before anything is tuned: a denial is told apart from a failure that passes."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.session import MlflowSession, RegistryDenied, RegistryDown
from orchestrator.registry.trying import try_writing

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)

EXPERIMENT = {"experiment": {"experiment_id": "7", "name": "ship", "lifecycle_stage": "active", "tags": []}}
Answer = tuple[int, str]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which MLflow has made its tables, which takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert MlflowSession(f"sqlite:///{path}", may_create=True).client is not None
    return path


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@contextmanager
def server(answer: Callable[[str], Answer]) -> Iterator[tuple[str, list[str]]]:
    """URI of an MLflow server of which ``answer`` gets the last words of each path, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name = self.path.partition("?")[0].rpartition("/")[2]
            asked.append(name)
            status, text = answer(name)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://user:S3cret@127.0.0.1:{listening.server_port}", asked
        finally:
            listening.shutdown()
            thread.join()


def answers(**given: Answer) -> Callable[[str], Answer]:
    """Answers by the last word of the path, with dashes as underscores; the rest succeeds."""
    usual: dict[str, Answer] = {"get-by-name": (200, json.dumps(EXPERIMENT))}
    own = {name.replace("_", "-"): answer for name, answer in given.items()}
    return lambda name: {**usual, **own}.get(name, (200, "{}"))


def code(name: str, text: str = "no") -> str:
    return json.dumps({"error_code": name, "message": text})


def test_what_was_written_is_removed(database: Path) -> None:
    session = MlflowSession(f"sqlite:///{database}", may_create=True)
    try_writing(session)
    experiment = session.client.get_experiment_by_name("ship")
    assert sorted(experiment.tags) == ["mlflow.experimentKind", "ship.registry"]
    try_writing(session)
    assert [found.name for found in session.client.search_experiments()] == ["ship", "Default"]
    assert session.client.search_registered_models() == []


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    try_writing(MlflowSession(f"sqlite:///{tmp_path / 'mlflow.db'}", may_create=True))
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_may_only_be_read(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow takes the part after `sqlite:///` for a path, and makes its folder.
    monkeypatch.chdir(tmp_path)
    try_writing(MlflowSession(f"sqlite:///{database}", may_create=True))
    with pytest.raises(RegistryDenied, match=r"did not take a record: .*readonly database.*rights"):
        try_writing(MlflowSession(f"sqlite:///file:{database}?mode=ro&uri=true", may_create=True))


def test_an_experiment_that_was_deleted(database: Path) -> None:
    session = MlflowSession(f"sqlite:///{database}", may_create=True)
    session.client.delete_experiment(session.experiment_id)
    with pytest.raises(RegistryDenied, match="was deleted; restore it with"):
        try_writing(MlflowSession(f"sqlite:///{database}", may_create=True))


def test_a_server_is_written_to_and_left_as_it_was() -> None:
    with server(answers()) as (uri, asked):
        try_writing(MlflowSession(uri))
    assert asked == ["get-by-name", "set-experiment-tag", "delete-experiment-tag"]


DENIALS = [
    (403, "Permission denied"),
    (401, "You are not authenticated."),
    (403, code("PERMISSION_DENIED")),
    (401, code("UNAUTHENTICATED")),
    (403, json.dumps({"message": "Forbidden"})),
]
# Of a server whose database is not to be written to: under codes of failures that pass.
FAILURES_THAT_STAY = [
    (500, code("INTERNAL_ERROR", "(sqlite3.OperationalError) attempt to write a readonly database")),
    (500, code("INTERNAL_ERROR", "(sqlite3.OperationalError) database or disk is full")),
    (503, code("TEMPORARILY_UNAVAILABLE", "cannot execute INSERT in a read-only transaction")),
    (500, code("INTERNAL_ERROR", "permission denied for table experiment_tags")),
    (500, code("INTERNAL_ERROR", "INSERT command denied to user 'ship'@'localhost'")),
    (500, code("INTERNAL_ERROR", "[Errno 28] No space left on device: '/mlruns'")),
]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        *(
            (call, it)
            for call in ("get_by_name", "set_experiment_tag", "delete_experiment_tag")
            for it in DENIALS
        ),
        *product(["set_experiment_tag"], FAILURES_THAT_STAY),
    ],
)
def test_a_denial_names_the_server_and_the_cause(
    call: str, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        server(answers(**{call: answer})) as (uri, _),
        pytest.raises(RegistryDenied, match=r"MLflow at http://127.0.0.1:.* did not .*rights") as denied,
    ):
        try_writing(MlflowSession(uri))
    assert "S3cret" not in str(denied.value)


@pytest.mark.parametrize(
    "answer",
    [
        (500, code("INTERNAL_ERROR", "the database is locked")),
        (500, "oops"),
        (502, "<html>Bad gateway</html>"),
        (503, code("TEMPORARILY_UNAVAILABLE", "could not connect to server: Connection refused")),
        (429, code("REQUEST_LIMIT_EXCEEDED", "slow down")),
    ],
)
def test_what_passes_is_no_denial(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        server(answers(set_experiment_tag=answer)) as (uri, _),
        pytest.raises(RegistryDown) as down,
    ):
        try_writing(MlflowSession(uri))
    assert not isinstance(down.value, RegistryDenied)


def test_a_limit_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        server(answers(set_experiment_tag=(400, code("RESOURCE_LIMIT_EXCEEDED")))) as (uri, _),
        pytest.raises(RegistryError) as refused,
    ):
        try_writing(MlflowSession(uri))
    assert not isinstance(refused.value, RegistryDown)


def test_a_server_that_cannot_delete_tags_is_written_to_all_the_same() -> None:
    missing = (404, code("ENDPOINT_NOT_FOUND"))
    with server(answers(delete_experiment_tag=missing)) as (uri, asked):
        try_writing(MlflowSession(uri))
    assert asked[-1] == "delete-experiment-tag"
