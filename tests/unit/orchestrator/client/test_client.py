"""The client against the real application on loopback, with an engine that is none."""

import json
import logging
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from orchestrator.client.client import Client, EndpointError, Prediction, Question
from orchestrator.console.endpoint_state import ask_endpoint
from orchestrator.serve.engine_api import EngineBusyError, Refusal
from tests.unit.orchestrator.client.endpoint import BACKBONE, PNG, Endpoint
from tests.unit.orchestrator.serve.factory import BOLTS, FakeEngine, draw_png


def test_a_prediction_says_what_answered(client: Client, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "cap.png").write_bytes(PNG)
    found = client.predict("bolts", tmp_path / "cap.png", version=2)
    assert (found.task, found.version, found.digest, found.label) == ("bolts", 2, "d" * 64, "bad")
    assert list(found.probabilities.items()) == [("bad", 0.75), ("good", 0.25)]
    assert found.backbone == BACKBONE.fingerprint
    assert client.predict("bolts", PNG) == found
    assert [(task, version) for _, task, version in engine.asked] == [("bolts", 2), ("bolts", None)]


def test_a_decision_comes_with_its_reason_and_its_rule(client: Client, engine: FakeEngine) -> None:
    assert (client.predict("bolts", PNG).decision, client.predict("bolts", PNG).rule) == ("bad", None)
    engine.decision, engine.because, engine.rules = "unsure", "cost", repeat("abc" * 21 + "d")
    found = client.predict("bolts", PNG)
    assert (found.decision, found.decision_because, found.rule) == ("unsure", "cost", "abcabcabcabc")
    assert found.label == "bad"
    [again] = client.predict_batch([Question(task="bolts", image=PNG)])
    assert again == found


def test_an_item_of_a_batch_has_its_own_backbone(client: Client, engine: FakeEngine) -> None:
    engine.of_backbone = "f" * 64
    [found] = client.predict_batch([Question(task="bolts", image=PNG)])
    assert isinstance(found, Prediction)
    assert found.backbone == "f" * 64


def test_tasks_and_readiness(client: Client, engine: FakeEngine) -> None:
    [listed], one = client.tasks(), client.task("bolts")
    assert (one.version, one.wanted_version, one.problem) == (2, 3, "prompt.json: it was changed")
    assert (listed.labels, one.labels) == ((), ("good", "bad"))
    assert (one.rule, one.wanted_rule) == (None, "f" * 64)
    assert client.is_ready()
    engine.refusal = Refusal(reason="not_ready", detail="the catalog is being loaded")
    assert not client.is_ready()


def test_state_and_metrics_are_given_as_the_endpoint_says_them(client: Client, engine: FakeEngine) -> None:
    found = client.readiness()
    assert (found["ready"], found["detail"], found["catalog_age_s"]) == (True, "1 tasks are served", 0.5)
    client.predict("bolts", PNG)
    state = ask_endpoint(client)
    assert state.problems == ()
    assert state.samples.total("ship_prompt_loads_total") == 7
    assert state.samples.total("ship_requests_total", route="/v1/predict", status="200") == 1
    assert state.tasks["bolts"].backbone == BACKBONE.fingerprint
    assert client.task("bolts").backbone == BACKBONE.fingerprint
    engine.refusal = Refusal(reason="not_ready", detail="the catalog is being loaded")
    found = client.readiness()
    assert (found["ready"], bool(found["detail"])) == (False, True)


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


def test_a_bare_500_of_the_proxy_is_asked_again_and_the_endpoints_own_is_not() -> None:
    app, replies = FastAPI(), [PlainTextResponse("Internal Server Error", 500)]
    asked: list[int] = []

    @app.get("/v1/tasks")
    def tasks() -> Response:
        asked.append(1)
        return replies.pop() if replies else JSONResponse({"tasks": []})

    endpoint = Endpoint(app)
    with Client(endpoint.url, patience_s=60.0) as client:
        assert client.tasks() == []
        assert len(asked) == 2
        replies.append(JSONResponse({"type": "urn:ship:problem:unexpected"}, 500))
        with pytest.raises(EndpointError) as refused:
            client.tasks()
    endpoint.close()
    assert (refused.value.kind, len(asked)) == ("unexpected", 3)


def test_what_does_not_pass_in_time_says_how_often_it_was_asked(url: str, engine: FakeEngine) -> None:
    engine.error = EngineBusyError("100 requests wait")
    said = r"100 requests wait \(asked \d+ times in "
    # Long enough for a second try on a busy machine, too.
    with Client(url, patience_s=4.0) as client, pytest.raises(EndpointError, match=said) as refused:
        client.predict("bolts", PNG)
    assert (refused.value.status, refused.value.kind, refused.value.retry_after_s) == (429, "busy", 0.0)
    copy = pickle.loads(pickle.dumps(refused.value))
    assert (str(copy), vars(copy)) == (str(refused.value), vars(refused.value))


def test_no_endpoint_there() -> None:
    endpoint = Endpoint(FastAPI())
    endpoint.close()
    with Client(endpoint.url, patience_s=0.2) as client:
        with pytest.raises(EndpointError, match="is `ship serve` running") as refused:
            client.tasks()
        assert refused.value.status is None
        assert not client.is_ready()


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://x", "http://", "https:///v1", "http://:80"),
        *("http://[::1", "http://a:x", "http://a:99999", "http://a\n", "http://a..b", "http://xn--0.y"),
        *("http://" + "a" * 70 + ".b", "http://" + "a" * 70_000),
    ],
)
def test_what_is_no_url_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(EndpointError, match=r"expected a URL such as http://127\.0\.0\.1:8000") as refused:
        Client(url)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("url", ["http://[::1]:8000", "HTTPS://Serve.plant/ship/", "http://müller.plant"])
def test_what_is_a_url_is_taken_without_a_slash_at_its_end(url: str) -> None:
    with Client(url) as client:
        assert client.url == url.rstrip("/")


def test_a_key_goes_along(client: Client, engine: FakeEngine) -> None:
    client.predict("bolts", PNG, key="line 7")
    client.explain("bolts", PNG, key="~")
    client.attention("bolts", PNG, key="k" * 128)
    assert [ask.key for ask in engine.asks] == ["line 7", "~", "k" * 128]


@pytest.mark.parametrize("key", ["", " ", "a ", " a", "a\nb", "ä", "k" * 129])
def test_what_cannot_be_a_key_is_not_sent(client: Client, engine: FakeEngine, key: str) -> None:
    with pytest.raises(EndpointError, match="expected 1 to 128 printable characters"):
        client.predict("bolts", PNG, key=key)
    assert not engine.asks


def test_a_foreign_endpoint_is_told() -> None:
    app = FastAPI()
    app.get("/v1/tasks")(lambda: {"jobs": []})
    app.get("/v1/tasks/{task}")(lambda task: Response("<h1>no</h1>", status_code=418))
    endpoint = Endpoint(app)
    try:
        with Client(endpoint.url) as client:
            with pytest.raises(EndpointError, match="gave a reply that is not a SHIP endpoint's"):
                client.tasks()
            with pytest.raises(EndpointError, match="no") as refused:
                client.task("bolts")
            assert (refused.value.status, refused.value.kind) == (418, None)
    finally:
        endpoint.close()


@dataclass
class Foreign:
    """A server that answers everything with the same."""

    url: str = ""
    body: str = ""

    def answer(self) -> Response:
        return Response(self.body, headers={"Ship-Backbone": "f" * 64}, media_type="application/json")


@pytest.fixture(scope="module")
def foreign() -> Iterator[Foreign]:
    app, server = FastAPI(), Foreign()
    app.api_route("/{path:path}", methods=["GET", "POST"])(server.answer)
    endpoint = Endpoint(app)
    server.url = endpoint.url
    yield server
    endpoint.close()


_ANSWER = {
    "task": "bolts",
    "version": 2,
    "digest": "d" * 64,
    "label": "bad",
    "probabilities": {"bad": 1.0},
}


def test_an_older_endpoint_decides_for_the_likeliest_label(foreign: Foreign) -> None:
    foreign.body = json.dumps(_ANSWER)
    with Client(foreign.url, patience_s=0.0) as client:
        found = client.predict("bolts", PNG)
    assert (found.decision, found.decision_because, found.rule) == ("bad", None, None)


def _items(item: object) -> str:
    return json.dumps({"items": [item]})


@pytest.mark.parametrize(
    "body",
    [
        *("", "[]", "null", '"text"', "{}", "[" * 100_000, '{"tasks": 3}', '{"items": 3, "tasks": {"a": 1}}'),
        *('{"tasks": ["bolts"]}', '{"tasks": [[]]}', '{"tasks": [null]}', '{"tasks": [{"task": "bolts"}]}'),
        *(_items("error"), _items(None), _items({"error": "no"}), _items({"error": {"title": "No"}})),
        _items({"error": {"title": "No", "detail": "", "type": "", "status": float("inf")}}),
        *(json.dumps(_ANSWER | {"probabilities": found}) for found in ([], None, {"bad": None})),
        *(_items(_ANSWER | {"probabilities": found}) for found in ([], None, {"bad": "x"})),
        *(json.dumps({name: _ANSWER[name] for name in _ANSWER if name != left_out}) for left_out in _ANSWER),
    ],
)
def test_replies_that_lack_something_are_told_as_such(foreign: Foreign, body: str) -> None:
    foreign.body = body
    with Client(foreign.url, patience_s=0.0) as client:
        for ask in (
            client.tasks,
            lambda: client.task("bolts"),
            lambda: client.predict("bolts", PNG),
            lambda: client.predict_batch([Question(task="bolts", image=PNG)]),
            lambda: client.explain("bolts", PNG),
            lambda: client.attention("bolts", PNG),
            lambda: client.explain_whole("bolts", PNG),
        ):
            with pytest.raises(EndpointError, match="gave a reply that is not a SHIP endpoint's"):
                ask()


def test_a_refusal_in_other_words_and_a_body_that_cannot_be_unpacked() -> None:
    app = FastAPI()
    app.get("/v1/tasks")(lambda: Response("[" * 100_000, status_code=400))
    app.get("/v1/tasks/{task}")(lambda task: Response(b"no", headers={"Content-Encoding": "gzip"}))
    app.get("/readyz")(lambda: Response(b"no", headers={"Content-Encoding": "gzip"}))
    endpoint = Endpoint(app)
    try:
        with Client(endpoint.url, patience_s=0.0) as client:
            with pytest.raises(EndpointError, match=r"Bad Request: \[\[") as refused:
                client.tasks()
            assert refused.value.status == 400
            with pytest.raises(EndpointError, match="does not answer"):
                client.task("bolts")
            assert not client.is_ready()
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
    with pytest.raises(EndpointError, match="100 requests wait"):
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


def test_an_explanation_in_both_forms_by_one_request(client: Client, engine: FakeEngine) -> None:
    found, drawing = client.explain_whole("bolts", PNG, key="line 7")
    assert [(ask.version, ask.key) for ask in engine.asks] == [(None, "line 7")]
    assert found == client.attention("bolts", PNG)
    assert drawing == client.explain("bolts", PNG)


def test_an_older_endpoint_is_asked_for_the_picture_of_the_version_of_the_numbers() -> None:
    versions: list[str | None] = []

    def explain(request: Request) -> Response:
        versions.append(request.headers.get("ship-version"))
        if "application/json" not in request.headers["accept"]:
            return Response(b"\x89PNG", media_type="image/png")
        maps = {"attention": [[1.0]], "bare_attention": [[1.0]]}
        plain = {"entropy": 0.0, "bare_entropy": 0.0, "distance": 0.0}
        return JSONResponse({"task": "bolts", "version": 7, "digest": "d", **maps, **plain})

    app = FastAPI()
    app.post("/v1/explain")(explain)
    endpoint = Endpoint(app)
    try:
        with Client(endpoint.url, patience_s=0.0) as client:
            found, drawing = client.explain_whole("bolts", PNG)
    finally:
        endpoint.close()
    assert (found.version, drawing, versions) == (7, b"\x89PNG", [None, "7"])


def test_a_user_in_the_url_is_sent_and_shown_nowhere(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Client(url.replace("://", "://proxy:S3cret@"), patience_s=0.0) as client:
        client.predict("bolts", PNG)
        assert (str(client.url), f"{client.url!r}") == (url, repr(url))
    assert "S3cret" not in caplog.text
    for bad in ("http://proxy:S3cret@h:99999", "ftp://proxy:S3cret@h", "http://proxy:S3cret@"):
        with pytest.raises(EndpointError) as refused:
            Client(bad)
        assert "S3cret" not in str(refused.value)


def test_a_list_of_tasks_is_followed_to_its_end(client: Client, engine: FakeEngine) -> None:
    engine.more = {f"line-{number:04}": replace(BOLTS, task=f"line-{number:04}") for number in range(1200)}
    assert [task.task for task in client.tasks()] == ["bolts", *engine.more]


def test_a_list_that_goes_in_circles_is_refused() -> None:
    app = FastAPI()
    app.get("/v1/tasks")(lambda: {"tasks": [], "next_cursor": "bolts"})
    endpoint = Endpoint(app)
    with Client(endpoint.url) as client, pytest.raises(EndpointError, match="not a SHIP endpoint's"):
        client.tasks()
    endpoint.close()
