"""Tokens that are known outlive a store that is down, a damaged file and a file that is gone, for a while."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.ingress.middleware.token_follower import TokenFollower
from orchestrator.serve.kept_tokens import KeptTokens
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


class Clocks:
    """A monotonic clock and a wall clock, moved by hand."""

    def __init__(self) -> None:
        self.monotonic_s, self.wall_s = 50.0, 1_000_000.0

    def pass_by(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds

    def keep(self, folder: Path) -> KeptTokens:
        return KeptTokens(folder, "the-store", lambda: self.wall_s)

    def follow(self, source: Source, folder: Path | None = None, grace_s: float = 100.0) -> TokenFollower:
        kept = None if folder is None else self.keep(folder)
        return TokenFollower(source, kept, grace_s=grace_s, clock=lambda: self.monotonic_s)


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


@pytest.mark.parametrize("problem", ["down", "gone", "slow"])
def test_tokens_are_too_old_once_the_grace_is_over_and_good_again_after_a_read(problem: str) -> None:
    clocks, source = Clocks(), Source((make("plc"), "1"))
    follower = clocks.follow(source)
    clocks.pass_by(1_000.0)
    assert not follower.is_stale, "there are none yet, which is another problem"
    follower.step()
    if problem == "down":
        source.error = StoreError("no route to host")
    elif problem == "gone":
        source.found = None
    for _ in range(10):
        clocks.pass_by(10.0)
        if problem != "slow":
            follower.step()
        assert not follower.is_stale
    # A clock of the machine that is set says nothing.
    clocks.wall_s -= 1e6
    clocks.pass_by(0.1)
    assert follower.is_stale
    assert follower.look_age_s == pytest.approx(100.1)
    assert follower.tokens is not None
    if problem != "slow":
        follower.step()
        assert "all requests are refused" in (follower.problem or "")
    source.found, source.error = (make("plc"), "2"), None
    follower.step()
    assert not follower.is_stale
    assert follower.problem is None


def test_a_read_counts_from_its_begin() -> None:
    clocks, source = Clocks(), Source()
    follower = clocks.follow(source)
    read = source.read_tokens

    def read_slowly() -> tuple[Tokens, str] | None:
        clocks.pass_by(60.0)
        return read()

    source.read_tokens = read_slowly  # type: ignore[method-assign]
    follower.step()
    assert follower.look_age_s == 60.0


def test_a_start_without_a_store_knows_the_tokens_that_were_kept(tmp_path: Path) -> None:
    clocks, source = Clocks(), Source((make("plc"), "1"))
    clocks.follow(source, tmp_path).step()
    source.error = StoreError("no route to host")
    clocks.pass_by(90.0)
    clocks.monotonic_s = 0.0
    follower = clocks.follow(source, tmp_path)
    follower.step()
    assert follower.tokens == source.found[0]
    assert (follower.is_stale, follower.look_age_s, follower.wait_known(0.0)) == (False, 90.0, True)
    clocks.pass_by(11.0)
    assert follower.is_stale
    source.found, source.error = (make("ops"), "2"), None
    follower.step()
    assert follower.tokens == source.found[0]
    assert follower.look_age_s == 0.0


def test_kept_tokens_take_the_place_of_none_that_were_read(tmp_path: Path) -> None:
    clocks = Clocks()
    clocks.keep(tmp_path).keep(make("old"))
    follower = clocks.follow(Source((make("plc"), "1")), tmp_path)
    follower.step()
    follower.take_over_kept()
    assert list(follower.tokens.by_name) == ["plc"]


def test_that_they_are_current_is_recorded_now_and_then(tmp_path: Path) -> None:
    clocks = Clocks()
    follower = clocks.follow(Source((make("plc"), "1")), tmp_path, grace_s=200.0)
    follower.step()
    clocks.pass_by(19.0)
    follower.step()
    assert clocks.keep(tmp_path).read()[1] == 19.0
    clocks.pass_by(1.0)
    follower.step()
    assert clocks.keep(tmp_path).read()[1] == 0.0


def test_a_broken_token_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects = open_objects(str(tmp_path))
    objects.put("tokens.json", b'{"schema":1,"tokens":{"plc":{"secrets":"ab12"}}}')
    follower = TokenFollower(PromptStore(objects))
    for _ in range(2):
        follower.step()
    assert follower.tokens is not None
    [record] = caplog.records
    assert "token 'plc'" in record.getMessage()
    assert "ab12" not in record.getMessage()
