"""The client and ``ship predict`` against the real application on loopback, with an engine that is none."""

import json
import logging
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.client import Client, EndpointError, Prediction, Question
from orchestrator.serve.app import make_app
from orchestrator.serve.engine_api import EngineBusyError, Refusal
from orchestrator.serve.options import Limits
from orchestrator.store.token_changes import create_token
from orchestrator.store.tokens import Scope, Tokens
from tests.console import run_ship
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png
from tests.unit.ship.conftest import make_backbone

PNG = draw_png()
BACKBONE = make_backbone().info


class Endpoint:
    """An application that listens on loopback until it is closed."""

    def __init__(self, app: FastAPI) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def url(engine: FakeEngine) -> Iterator[str]:
    endpoint = Endpoint(make_app(engine, BACKBONE, Limits(retry_after_s=0, max_body_bytes=100_000)))
    yield endpoint.url
    endpoint.close()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, patience_s=0.5) as client:
        yield client


def test_a_prediction_says_what_answered(client: Client, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "cap.png").write_bytes(PNG)
    found = client.predict("bolts", tmp_path / "cap.png", version=2)
    assert (found.task, found.version, found.digest, found.label) == ("bolts", 2, "d" * 64, "bad")
    assert list(found.probabilities.items()) == [("bad", 0.75), ("good", 0.25)]
    assert found.backbone == BACKBONE.fingerprint
    assert client.predict("bolts", PNG) == found
    assert [(task, version) for _, task, version in engine.asked] == [("bolts", 2), ("bolts", None)]


def test_tasks_and_readiness(client: Client, engine: FakeEngine) -> None:
    [listed], one = client.tasks(), client.task("bolts")
    assert (one.version, one.wanted_version, one.problem) == (2, 3, "prompt.json: it was changed")
    assert (listed.labels, one.labels) == ((), ("good", "bad"))
    assert client.is_ready()
    engine.refusal = Refusal(reason="not_ready", detail="the catalog is being loaded")
    assert not client.is_ready()


def test_a_refusal_is_an_error_that_says_all_there_is(client: Client, engine: FakeEngine) -> None:
    engine.refusal = Refusal(reason="unknown_task", detail="task 'bolts' is not in the catalog")
    with pytest.raises(EndpointError, match="Unknown task: task 'bolts' is not in the catalog") as refused:
        client.predict("bolts", PNG)
    assert (refused.value.status, refused.value.kind) == (404, "task-unknown")
    assert len(engine.asked) == 1, "asking again would change nothing"
    with pytest.raises(EndpointError, match="image") as refused:
        client.predict("bolts", b"GIF89a")
    assert (refused.value.status, refused.value.kind) == (415, "image-unsupported")
    with pytest.raises(EndpointError, match="is no task name"):
        client.task("../bolts")
    assert client.task("bolts").task == "bolts", "the client goes on"


def test_what_may_pass_is_asked_again(url: str, engine: FakeEngine) -> None:
    engine.error = EngineBusyError("100 requests wait")
    threading.Timer(0.2, lambda: setattr(engine, "error", None)).start()
    with Client(url, patience_s=60.0) as client:
        assert client.predict("bolts", PNG).label == "bad"


def test_what_does_not_pass_in_time_says_how_often_it_was_asked(client: Client, engine: FakeEngine) -> None:
    engine.error = EngineBusyError("100 requests wait")
    with pytest.raises(EndpointError, match=r"100 requests wait \(asked \d+ times in ") as refused:
        client.predict("bolts", PNG)
    assert (refused.value.status, refused.value.kind, refused.value.retry_after_s) == (429, "busy", 0.0)
    copy = pickle.loads(pickle.dumps(refused.value))
    assert (str(copy), vars(copy)) == (str(refused.value), vars(refused.value))


def test_nobody_there() -> None:
    endpoint = Endpoint(FastAPI())
    endpoint.close()
    with Client(endpoint.url, patience_s=0.2) as client:
        with pytest.raises(EndpointError, match="is `ship serve` running") as refused:
            client.tasks()
        assert refused.value.status is None
        assert not client.is_ready()
    with pytest.raises(EndpointError, match="expected a URL such as"):
        Client("localhost:8000")


def test_an_endpoint_of_somebody_else_is_told() -> None:
    app = FastAPI()
    app.get("/v1/tasks")(lambda: {"jobs": []})
    app.get("/v1/tasks/{task}")(lambda task: Response("<h1>no</h1>", status_code=418))
    endpoint = Endpoint(app)
    try:
        with Client(endpoint.url) as client:
            with pytest.raises(EndpointError, match="answered what no endpoint of ship answers"):
                client.tasks()
            with pytest.raises(EndpointError, match="no") as refused:
                client.task("bolts")
            assert (refused.value.status, refused.value.kind) == (418, None)
    finally:
        endpoint.close()


def test_a_batch_is_answered_in_order_and_sends_each_image_once(
    client: Client, engine: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "cap.png").write_bytes(PNG)
    other = draw_png(1)
    questions = [
        Question(task="bolts", image=tmp_path / "cap.png", version=2),
        Question(task="nuts", image=PNG),
        Question(task="caps", image=other, key="line 7"),
        Question(task="bolts", image=b"GIF89a"),
    ]
    first, unknown, third, broken = client.predict_batch(questions)
    assert first == client.predict("bolts", PNG)
    assert isinstance(third, Prediction)
    assert third.task == "caps"
    assert isinstance(unknown, EndpointError)
    assert (unknown.status, unknown.kind) == (404, "task-unknown")
    assert "task 'nuts' is not in the catalog" in str(unknown)
    assert isinstance(broken, EndpointError)
    assert (broken.status, broken.kind) == (415, "image-unsupported")
    assert engine.num_images[0] == 2
    assert [(ask.task, ask.version, ask.key) for ask in engine.asks[:3]] == [
        ("bolts", 2, None),
        ("nuts", None, None),
        ("caps", None, "line 7"),
    ]


def test_a_batch_that_is_refused_as_a_whole(client: Client, engine: FakeEngine) -> None:
    with pytest.raises(EndpointError, match="at least one item") as refused:
        client.predict_batch([])
    assert (refused.value.status, refused.value.kind) == (400, "json-invalid")
    with pytest.raises(EndpointError, match="no task name"):
        client.predict_batch([Question(task="../bolts", image=PNG)])
    engine.error = EngineBusyError("100 requests wait")
    with pytest.raises(EndpointError, match="asked"):
        client.predict_batch([Question(task="bolts", image=PNG)])


def test_an_explanation_in_a_picture_and_in_numbers(client: Client, engine: FakeEngine) -> None:
    assert client.explain("bolts", PNG, version=2).startswith(b"\x89PNG")
    found = client.attention("bolts", PNG)
    assert (found.task, found.version, found.distance) == ("bolts", 2, 0.5)
    assert found.attention == ((0.25, 0.25), (0.25, 0.25))
    assert found.bare_attention == ((0.5, 0.0), (0.0, 0.5))
    assert [ask.version for ask in engine.asks] == [2, None]
    engine.refusal = Refusal(reason="unknown_task", detail="task 'bolts' is not in the catalog")
    with pytest.raises(EndpointError, match="not in the catalog"):
        client.explain("bolts", PNG)


def test_ship_explain(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "cap.png"
    image.write_bytes(PNG)
    monkeypatch.setenv("SHIP_URL", url)

    assert run_ship(monkeypatch, "explain", "bolts", str(image), "-o", str(tmp_path / "heat.png")) == 0
    assert "heat.png" in capsys.readouterr().out
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert run_ship(monkeypatch, "explain", "bolts", str(image)) == 0
    assert (tmp_path / "cap-bolts.png").exists()
    assert image.read_bytes() == PNG
    capsys.readouterr()

    before = sorted(tmp_path.iterdir())
    assert run_ship(monkeypatch, "explain", "bolts", str(image), "--json") == 0
    assert json.loads(capsys.readouterr().out)["distance"] == 0.5
    assert sorted(tmp_path.iterdir()) == before
    assert run_ship(monkeypatch, "explain", "../bolts", str(image)) == 1
    assert "no task name" in capsys.readouterr().err


@dataclass
class Known:
    """Tokens of an endpoint."""

    tokens: Tokens


@pytest.fixture(autouse=True)
def no_token_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHIP_TOKEN", raising=False)


@pytest.fixture
def guarded(engine: FakeEngine) -> Iterator[tuple[str, str, str]]:
    """Of an endpoint with access control: URL, a token for its task, and one for others."""
    tokens, ours = create_token(Tokens(), "ours", Scope(predict=("bolts",)), now_s=0.0)
    tokens, others = create_token(tokens, "others", Scope(predict=("nuts",)), now_s=0.0)
    endpoint = Endpoint(make_app(engine, BACKBONE, tokens=Known(tokens)))
    yield endpoint.url, ours.text, others.text
    endpoint.close()


def test_a_token_is_taken_from_the_environment_unless_one_is_given(
    guarded: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ours, others = guarded
    with Client(url, ours) as client:
        assert client.predict("bolts", PNG).label == "bad"
    monkeypatch.setenv("SHIP_TOKEN", f"{ours}\n")
    with Client(url) as client:
        assert client.task("bolts").version == 2
    with Client(url, token=others) as client:
        assert client.tasks() == []
    with Client(url, token="") as client, pytest.raises(EndpointError, match="no token was sent"):
        client.tasks()


def test_refusals_of_who_asks_say_what_to_do_and_are_not_asked_again(
    guarded: tuple[str, str, str], engine: FakeEngine
) -> None:
    url, ours, others = guarded
    for token, status, kind, said in (
        ("", 401, "token-missing", r"no token was sent; set SHIP_TOKEN"),
        (ours[:-4] + "0000", 401, "token-invalid", r"it is not good; set SHIP_TOKEN"),
        (others, 403, "not-allowed", r"may not ask task 'bolts'; its tasks: nuts.*set SHIP_TOKEN"),
    ):
        with Client(url, token) as client, pytest.raises(EndpointError, match=said) as refused:
            client.predict("bolts", PNG)
        assert (refused.value.status, refused.value.kind) == (status, kind)
        assert "asked" not in str(refused.value), "asking again would change nothing"
    assert not engine.asked


@pytest.mark.parametrize("token", ["two words", "a\nb", "ship_ä", "\0", "x" * 5000])
def test_what_cannot_be_a_token_is_refused_without_being_told(token: str) -> None:
    with pytest.raises(EndpointError, match="expected one token") as refused:
        Client("http://127.0.0.1:1", token)
    assert token not in str(refused.value)


def test_a_token_is_in_no_repr_log_or_error(
    guarded: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    url, ours, _ = guarded
    caplog.set_level(logging.DEBUG)
    with Client(url, ours) as client:
        client.task("bolts")
        shown = [repr(client), repr(vars(client)), repr(vars(client._http))]
        with pytest.raises(EndpointError) as refused:
            client.task("nuts")
        shown += [str(refused.value), repr(refused.value), caplog.text]
    secret = ours.rpartition("_")[2]
    assert caplog.records
    assert not any(secret in text for text in shown)


class Elsewhere:
    """A server of somebody else that keeps and repeats what it is told."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.seen: list[str | None] = []
        self.app.get("/v1/tasks")(self.repeat)
        self.app.get("/v1/tasks/{task}")(self.repeat_whole)
        self.app.post("/v1/predict:batch")(self.repeat_item)

    async def repeat(self, request: Request) -> Response:
        self.seen.append(request.headers.get("Authorization"))
        return Response(f"what is {self.seen[-1]}", status_code=400)

    async def repeat_whole(self, request: Request) -> Response:
        self.seen.append(request.headers.get("Authorization"))
        # The token stands where the client cuts a reply off.
        return Response(f"{'x' * 180}{self.seen[-1]}")

    async def repeat_item(self, request: Request) -> dict[str, Any]:
        self.seen.append(request.headers.get("Authorization"))
        problem = {"title": "No", "detail": self.seen[-1], "status": 400, "type": "about:blank"}
        return {"items": [{"task": "bolts", "error": problem}]}


def test_a_server_that_repeats_the_token_does_not_bring_it_into_an_error() -> None:
    elsewhere, token = Elsewhere(), "a-token-of-some-proxy-that-is-rather-long"
    endpoint = Endpoint(elsewhere.app)
    try:
        with Client(endpoint.url, token) as client:
            for ask in (client.tasks, lambda: client.task("bolts")):
                with pytest.raises(EndpointError) as refused:
                    ask()
                assert token[:8] not in str(refused.value)
            [refusal] = client.predict_batch([Question(task="bolts", image=PNG)])
            assert token[:8] not in str(refusal)
            assert "No: " in str(refusal)
    finally:
        endpoint.close()
    assert elsewhere.seen == [f"Bearer {token}"] * 3, "it was sent"


def test_a_token_goes_to_its_endpoint_alone() -> None:
    elsewhere = Elsewhere()
    other = Endpoint(elsewhere.app)
    app = FastAPI()
    app.get("/v1/tasks")(lambda: RedirectResponse(f"{other.url}/v1/tasks"))
    endpoint = Endpoint(app)
    try:
        with Client(endpoint.url, "a-token") as client:
            with pytest.raises(EndpointError, match="answered what no endpoint of ship answers"):
                client.tasks()
            assert elsewhere.seen == [], "redirects are not followed"
            # Not even by who follows them against our will, or asks elsewhere by the same connection.
            client._http.get("/v1/tasks", follow_redirects=True)
            client._http.get(f"{other.url}/v1/tasks")
        assert elsewhere.seen == [None, None]
    finally:
        endpoint.close()
        other.close()


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, orchestrator.client; print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def answers(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_ship_predict(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = str(tmp_path / "good.png"), str(tmp_path / "bad.png")
    Path(good).write_bytes(PNG)
    Path(bad).write_bytes(PNG[:100])
    monkeypatch.setenv("SHIP_URL", url)

    assert run_ship(monkeypatch, "predict", "bolts", good) == 0
    printed = capsys.readouterr().out
    assert "good.png" in printed
    assert "bad 75.0%, good 25.0%" in printed

    assert run_ship(monkeypatch, "predict", "bolts", good, bad, "--json") == 1
    first, second = answers(capsys)
    assert (first["image"], first["label"], first["version"]) == (good, "bad", 2)
    assert second["image"] == bad
    assert "The image is broken" in second["error"]

    assert run_ship(monkeypatch, "predict", "bolts", bad) == 1
    assert "The image is broken" in capsys.readouterr().out


def test_ship_predict_with_a_token(
    guarded: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, ours, _ = guarded
    (tmp_path / "cap.png").write_bytes(PNG)
    asked = ("predict", "bolts", str(tmp_path / "cap.png"), "--url", url)
    assert run_ship(monkeypatch, *asked) == 1
    assert "set SHIP_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("SHIP_TOKEN", ours)
    assert run_ship(monkeypatch, *asked, "--json") == 0
    assert [answer["label"] for answer in answers(capsys)] == ["bad"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["bolts"], 2, "Missing argument"),
        (["bolts", "nowhere.png"], 2, "nowhere.png"),
        (["../bolts", __file__], 1, "no task name"),
        (["bolts", __file__, "--url", "ftp://x"], 1, "ftp"),
    ],
)
def test_ship_predict_refuses(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    assert run_ship(monkeypatch, "predict", *arguments) == status
    assert said in capsys.readouterr().err
