"""Fixtures of an endpoint that listens, for the tests of the client and of the commands that use it."""

from collections.abc import Iterator

import pytest

from orchestrator.client.client import Client
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.options import Limits
from orchestrator.store.documents.token_changes import create_token
from orchestrator.store.documents.tokens import Scope, Tokens
from tests.unit.orchestrator.client.endpoint import BACKBONE, Endpoint, Known
from tests.unit.orchestrator.serve.factory import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def url(engine: FakeEngine) -> Iterator[str]:
    endpoint = Endpoint(
        make_app(engine, BACKBONE, Limits(retry_after_s=0, max_body_bytes=100_000, probe_keep_s=0.0))
    )
    yield endpoint.url
    endpoint.close()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, patience_s=0.5) as client:
        yield client


@pytest.fixture(autouse=True)
def no_token_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHIP_TOKEN", raising=False)


@pytest.fixture
def guarded(engine: FakeEngine) -> Iterator[tuple[str, str, str]]:
    """URL of an endpoint with access control, a token for its task, and one for others."""
    tokens, ours = create_token(Tokens(), "ours", Scope(predict=("bolts",)), now_s=0.0)
    tokens, others = create_token(tokens, "others", Scope(predict=("nuts",)), now_s=0.0)
    endpoint = Endpoint(make_app(engine, BACKBONE, tokens=Known(tokens)))
    yield endpoint.url, ours.text, others.text
    endpoint.close()
