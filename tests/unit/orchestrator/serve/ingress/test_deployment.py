"""The ingress deployment's class without Ray: access follows the tokens of the store."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.ingress.deployment import Ingress
from orchestrator.serve.options import Limits
from orchestrator.store.documents.token_changes import change_tokens, create_token, revoke_token
from orchestrator.store.documents.tokens import Scope
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.backbone import Backbone
from tests.unit.orchestrator.serve.factory import FakeEngine, Handle


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(open_objects(str(tmp_path)))


@pytest.fixture
def ingress(backbone: Backbone, tmp_path: Path, store: PromptStore) -> Iterator[Ingress]:
    # An ingress waits a while for the first tokens.
    change_tokens(store, lambda tokens: create_token(tokens, "ops", Scope(admin=True), now_s=0.0))
    ingress = Ingress([Handle(FakeEngine(info=backbone.info))], Limits(), str(tmp_path))
    yield ingress
    assert ingress._tokens is not None
    ingress._tokens.stop()


def get(ingress: Ingress, path: str, token: str | None = None) -> int:
    """Status of the reply."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def send() -> int:
        transport = httpx.ASGITransport(await ingress.__serve_build_asgi_app__())
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            return (await client.get(path, headers=headers)).status_code

    return asyncio.run(send())


def test_tokens_of_the_store_count_from_the_next_look_on(ingress: Ingress, store: PromptStore) -> None:
    scope = Scope(predict=("bolts",))
    text = change_tokens(store, lambda tokens: create_token(tokens, "plc", scope, now_s=0.0)).text
    assert ingress._tokens is not None
    ingress._tokens.step()
    assert get(ingress, "/v1/tasks/bolts") == 401
    assert get(ingress, "/v1/tasks/bolts", text) == 200
    change_tokens(store, lambda tokens: revoke_token(tokens, "plc"))
    ingress._tokens.step()
    assert get(ingress, "/v1/tasks/bolts", text) == 401


def test_the_process_that_started_it_needs_no_token_to_list_tasks(ingress: Ingress) -> None:
    [state] = asyncio.run(ingress.tasks())
    assert (state.task, state.version) == ("bolts", 2)


def test_it_is_healthy_as_long_as_it_follows_the_tokens(ingress: Ingress) -> None:
    ingress.check_health()
    assert ingress._tokens is not None
    ingress._tokens.stop()
    # Joining ends with the test's time limit, not before the thread does.
    ingress._tokens._thread.join()
    with pytest.raises(RuntimeError, match="follows the tokens is dead"):
        ingress.check_health()


def test_two_backbones_are_two(backbone: Backbone) -> None:
    handles = [Handle(FakeEngine(info=backbone.info)) for _ in range(2)]
    with pytest.raises(ServeError, match=r"two backbones .* are the same: 'small'.*name each one once"):
        get(Ingress(handles, Limits(), None), "/v1/tasks")
    other = replace(backbone.info, fingerprint="f" * 64, name="other")
    handles[1] = Handle(FakeEngine(info=other))
    assert get(Ingress(handles, Limits(), None), "/v1/tasks") == 200


def test_without_access_control_nothing_is_followed(backbone: Backbone) -> None:
    ingress = Ingress([Handle(FakeEngine(info=backbone.info))], Limits(), None)
    ingress.check_health()
    assert get(ingress, "/v1/tasks/bolts") == 200
