"""Tokens that are known outlive a store that is down, a damaged file and a file that is gone."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.ingress.middleware.token_follower import TokenFollower
from orchestrator.store.documents.token_changes import change_tokens, create_token, rotate_token
from orchestrator.store.documents.tokens import Scope, Tokens
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore


@dataclass
class Source:
    """Tokens in a store; raises what it is told to."""

    found: tuple[Tokens, str] | None = field(default_factory=lambda: (Tokens(), "1"))
    error: Exception | None = None
    num_reads: int = 0

    def read_tokens(self) -> tuple[Tokens, str] | None:
        self.num_reads += 1
        if self.error is not None:
            raise self.error
        return self.found


def make(name: str) -> Tokens:
    return create_token(Tokens(), name, Scope(predict=("*",)), now_s=0.0)[0]


def test_a_change_in_the_store_arrives(tmp_path: Path) -> None:
    store = PromptStore(open_objects(str(tmp_path)))
    follower = TokenFollower(store)
    follower.step()
    assert follower.tokens is None
    assert "no tokens in the store" in (follower.problem or "")
    made = change_tokens(store, lambda tokens: create_token(tokens, "plc", Scope(admin=True), now_s=0.0))
    follower.step()
    assert follower.problem is None
    assert follower.tokens is not None
    assert follower.tokens.by_name == {"plc": made.token}
    rotated = change_tokens(store, lambda tokens: rotate_token(tokens, "plc", now_s=1.0))
    follower.step()
    assert follower.tokens.by_name == {"plc": rotated.token}


@pytest.mark.parametrize("problem", ["down", "damaged", "gone"])
def test_what_is_known_goes_on_and_a_problem_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    objects = open_objects(str(tmp_path))
    source = Source((make("plc"), "1"))
    follower = TokenFollower(source)
    follower.step()
    known = follower.tokens
    assert known is not None
    if problem == "down":
        source.error = StoreError("no route to host")
    elif problem == "gone":
        source.found = None
    else:
        objects.put("tokens.json", b'{"schema":1,"tokens":["ab12"]}')
        source.read_tokens = PromptStore(objects).read_tokens  # type: ignore[method-assign]
    for _ in range(3):
        follower.step()
    assert follower.tokens is known
    [record] = caplog.records
    assert "the tokens known so far go on" in record.getMessage()
    assert "ab12" not in record.getMessage()


def test_a_token_that_cannot_be_read_stays_as_it_was_known_and_concerns_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects = open_objects(str(tmp_path))
    source = Source((make("plc"), "1"))
    follower = TokenFollower(source)
    follower.step()
    known = follower.tokens
    assert known is not None
    values = json.loads(make("ops").to_json())
    values["tokens"] |= {"plc": {"secrets": "ab12"}, "new": None}
    objects.put("tokens.json", json.dumps(values).encode())
    source.read_tokens = PromptStore(objects).read_tokens  # type: ignore[method-assign]
    for _ in range(3):
        follower.step()
    assert follower.tokens is not None
    assert set(follower.tokens.by_name) == {"plc", "ops"}
    assert follower.tokens.by_name["plc"] == known.by_name["plc"]
    assert (follower.num_broken, follower.problem) == (2, None)
    assert "'plc' stays as it was" in caplog.text
    assert "'new' is refused" in caplog.text
    assert caplog.text.count("is refused") == 1
    assert "ab12" not in caplog.text


def test_tokens_that_come_back_are_taken_again() -> None:
    source = Source((make("plc"), "1"))
    follower = TokenFollower(source)
    follower.step()
    source.found = None
    follower.step()
    source.found = (make("ops"), "2")
    follower.step()
    assert follower.tokens is not None
    assert list(follower.tokens.by_name) == ["ops"]
    assert follower.problem is None


def test_the_thread_outlives_whatever_a_store_raises() -> None:
    source = Source(error=KeyError("a driver's bug"))
    follower = TokenFollower(source, poll_s=0.001)
    follower.start()
    while source.num_reads < 3:
        assert follower.is_alive
    assert follower.tokens is None
    assert not follower.wait_known(0.0)
    source.error = None
    assert follower.wait_known(10.0)
    assert follower.tokens == Tokens()
    follower.stop()


def test_nothing_is_known_before_the_first_look() -> None:
    follower = TokenFollower(Source())
    assert follower.tokens is None
    assert follower.problem is not None
    assert not follower.is_alive
