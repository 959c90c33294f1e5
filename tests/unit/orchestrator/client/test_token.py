"""Origins that the token is sent to, and those that it is not."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.client.client import Client, EndpointError, Question
from tests.unit.orchestrator.client.endpoint import PNG, Endpoint
from tests.unit.orchestrator.serve.factory import FakeEngine


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


def test_refused_tokens_are_told_what_to_do_and_not_retried(
    guarded: tuple[str, str, str], engine: FakeEngine
) -> None:
    url, ours, others = guarded
    for token, status, kind, said in (
        ("", 401, "token-missing", r"no token was sent; set SHIP_TOKEN"),
        (ours[:-4] + "0000", 401, "token-invalid", r"is not valid; set SHIP_TOKEN"),
        (others, 403, "not-allowed", r"no access to task 'bolts'; its tasks: nuts.*set SHIP_TOKEN"),
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
    """A foreign server that keeps and repeats what it is told."""

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
            with pytest.raises(EndpointError, match="gave a reply that is not a SHIP endpoint's"):
                client.tasks()
            assert elsewhere.seen == [], "redirects are not followed"
            # Not even by a client that follows them, or asks elsewhere by the same connection.
            client._http.get("/v1/tasks", follow_redirects=True)
            client._http.get(f"{other.url}/v1/tasks")
        assert elsewhere.seen == [None, None]
    finally:
        endpoint.close()
        other.close()
