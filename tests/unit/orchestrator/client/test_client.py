"""The client against the real application on loopback, with an engine that is none."""

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fastapi import FastAPI, Response

from orchestrator.client import Client, EndpointError, Prediction, Question
from orchestrator.serve.engine_api import EngineBusyError, Refusal
from tests.unit.orchestrator.client.endpoint import BACKBONE, PNG, Endpoint
from tests.unit.orchestrator.serve.factory import FakeEngine, draw_png


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


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, orchestrator.client; print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
