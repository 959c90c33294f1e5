"""The values: what a scope covers, what is kept of a secret, and what is no list of tokens."""

import hashlib
import json
from typing import Any

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.documents.tokens import (
    Scope,
    Secret,
    Token,
    Tokens,
    hash_secret,
    is_pattern,
    parse_token,
)
from tests.unit.orchestrator.store.factory import make_key

SECRET = {"id": "0" * 12, "sha256": make_key("1"), "created_s": 5.0, "expires_s": None}
TOKEN = {"predict": ["line-1-*"], "metrics": False, "admin": False, "secrets": [SECRET]}


def document(**tokens: Any) -> bytes:
    return json.dumps({"schema": 1, "tokens": tokens}).encode()


def test_they_read_back_as_they_were_written() -> None:
    older = Secret(token_id="a" * 12, sha256=make_key("a"), created_s=1.0, expires_s=9.5)
    newer = Secret(token_id="b" * 12, sha256=make_key("b"), created_s=2.0)
    tokens = Tokens(
        by_name={
            "plc": Token(scope=Scope(predict=("line-1-*", "bolts")), secrets=(newer, older)),
            "ops": Token(
                scope=Scope(metrics=True, admin=True),
                secrets=(Secret(token_id="c" * 12, sha256=make_key("c"), created_s=3),),
            ),
        }
    )
    again = Tokens.from_json(tokens.to_json())
    assert again == tokens
    assert again.find("a" * 12) == ("plc", tokens.by_name["plc"], older)
    assert again.find("d" * 12) is None
    reverse = Tokens(by_name=dict(reversed(tokens.by_name.items())))
    assert reverse.to_json() == tokens.to_json()


@pytest.mark.parametrize(
    ("scope", "task", "is_covered"),
    [
        (Scope(predict=("line-1-*",)), "line-1-caps", True),
        (Scope(predict=("line-1-*",)), "line-10-caps", False),
        (Scope(predict=("line-1-*",)), "xline-1-caps", False),
        (Scope(predict=("a", "line-[12]-caps")), "line-2-caps", True),
        (Scope(predict=("*",)), "bolts", True),
        (Scope(predict=("bolts",)), "bolts.m6", False),
        (Scope(metrics=True), "bolts", False),
        (Scope(admin=True), "bolts", True),
    ],
)
def test_a_scope_covers_tasks_by_pattern(scope: Scope, task: str, is_covered: bool) -> None:
    assert scope.may_predict(task) is is_covered


def test_metrics_take_a_scope_of_their_own_or_all() -> None:
    assert Scope(metrics=True).may_read_metrics()
    assert Scope(admin=True).may_read_metrics()
    assert not Scope(predict=("*",)).may_read_metrics()


def test_a_secret_is_known_by_its_hash_and_dies_on_time() -> None:
    secret = Secret(token_id="a" * 12, sha256=hash_secret("b" * 64), created_s=1.0, expires_s=9.0)
    assert secret.sha256 == hashlib.sha256(b"b" * 64).hexdigest()
    assert secret.is_made_of("b" * 64)
    assert not secret.is_made_of("c" * 64)
    assert secret.is_live(8.9)
    assert not secret.is_live(9.0)
    assert secret.sha256 not in repr(secret)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"ship_{'0' * 12}_{'f' * 64}", ("0" * 12, "f" * 64)),
        (f"ship_{'0' * 12}_{'f' * 63}", None),
        (f"ship_{'0' * 12}_{'f' * 64}\n", None),
        (f"ship_{'0' * 11}_{'f' * 64}", None),
        (f"SHIP_{'0' * 12}_{'f' * 64}", None),
        ("", None),
    ],
)
def test_a_token_is_id_and_secret(text: str, found: tuple[str, str] | None) -> None:
    assert parse_token(text) == found


def test_what_is_no_pattern() -> None:
    assert all(is_pattern(pattern) for pattern in ("*", "line-1-*", "a?", "[!a-c]*", "bolts"))
    assert not any(is_pattern(pattern) for pattern in ("", "A", "a/b", "a b", "a\n", "*" * 101, None, 1))


def test_patterns_that_could_take_long_do_not() -> None:
    # The engine of regular expressions would try for hours if it went back and forth between the stars.
    assert not Scope(predict=("*a" * 49 + "*b",)).may_predict("a" * 63)


@pytest.mark.parametrize(
    "change",
    [
        {"predict": "line-1-*"},
        {"predict": ["A*"]},
        {"predict": [1]},
        {"predict": []},
        {"metrics": 1},
        {"admin": None},
        {"extra": 1},
        {"secrets": []},
        {"secrets": [SECRET] * 9},
        {"secrets": {}},
        {"secrets": [None]},
        {"secrets": [{**SECRET, "id": "0"}]},
        {"secrets": [{**SECRET, "id": 0}]},
        {"secrets": [{**SECRET, "sha256": "abc"}]},
        {"secrets": [{**SECRET, "created_s": True}]},
        {"secrets": [{**SECRET, "created_s": None}]},
        {"secrets": [{**SECRET, "expires_s": float("nan")}]},
        {"secrets": [{**SECRET, "expires_s": float("inf")}]},
        {"secrets": [{**SECRET, "expires_s": "tomorrow"}]},
        {"secrets": [{**SECRET, "secret": "f" * 64}]},
    ],
)
def test_an_entry_that_is_not_as_it_should_be_is_broken_alone(change: dict[str, object]) -> None:
    other = TOKEN | {"secrets": [SECRET | {"id": "1" * 12}]}
    content = document(plc=TOKEN | change, ok=other)
    tokens = Tokens.from_json(content)
    assert list(tokens.by_name) == ["ok"]
    assert tokens.find(SECRET["id"]) is None
    problem = tokens.broken["plc"].problem
    assert problem.startswith("token 'plc': ")
    assert "`ship token revoke` removes it" in problem
    assert SECRET["sha256"] not in repr(tokens.broken) + problem
    # As text: NaN is not equal to itself.
    assert Tokens.from_json(tokens.to_json()).to_json() == tokens.to_json()
    assert json.dumps(json.loads(tokens.to_json()), sort_keys=True) == json.dumps(
        json.loads(content), sort_keys=True
    )


@pytest.mark.parametrize("name", ["../x", "", "Ops", "a" * 64, "a b", "__class__", "\x1b[31m"])
def test_an_entry_under_a_name_that_is_none_is_broken_alone(name: str) -> None:
    other = TOKEN | {"secrets": [SECRET | {"id": "1" * 12}]}
    tokens = Tokens.from_json(document(**{name: other}, ok=TOKEN))
    assert (list(tokens.by_name), list(tokens.broken)) == (["ok"], [name])
    with pytest.raises(StoreError, match="name of another form"):
        tokens.broken[name].mend(name)


def test_tokens_that_share_an_id_are_broken_both_and_no_other() -> None:
    other = TOKEN | {"secrets": [SECRET | {"id": "1" * 12}]}
    tokens = Tokens.from_json(document(a=TOKEN, b=TOKEN, ok=other))
    assert (list(tokens.by_name), sorted(tokens.broken)) == (["ok"], ["a", "b"])
    assert tokens.find(SECRET["id"]) is None
    assert f"found {SECRET['id']} twice" in tokens.broken["a"].problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"[]", "should be an object"),
        (b'{"schema":1}', "'tokens': Field required"),
        (b'{"schema":2,"tokens":{}}', "'schema': expected at most 1, found 2, of a later version"),
        (b'{"schema":1,"tokens":[]}', "'tokens': Input should be an object"),
        (b'{"schema":true,"tokens":{}}', "'schema'"),
        (b'{"schema":1,"tokens":{},"more":1}', "'more'"),
    ],
)
def test_what_is_no_list_of_tokens_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(StoreError, match="tokens") as caught:
        Tokens.from_json(content)
    assert problem in str(caught.value)


@pytest.mark.parametrize("console", ["look", "decide", "admin"])
def test_access_to_the_console_is_a_field_of_its_own_token_alone(console: Any) -> None:
    secrets = (Secret(token_id="a" * 12, sha256=make_key("a"), created_s=1.0),)
    others = Secret(token_id="b" * 12, sha256=make_key("b"), created_s=1.0)
    tokens = Tokens(
        by_name={
            "maria": Token(scope=Scope(predict=("*",), console=console), secrets=secrets),
            "plc": Token(scope=Scope(predict=("*",)), secrets=(others,)),
        }
    )
    assert Tokens.from_json(tokens.to_json()) == tokens
    written = json.loads(tokens.to_json())["tokens"]
    assert written["maria"]["console"] == console
    # What an earlier version refuses of a token is not there where nobody asked for it.
    assert written["plc"].keys() == TOKEN.keys()


@pytest.mark.parametrize("console", ["all", "", 1, True])
def test_another_access_to_the_console_is_broken_alone(console: Any) -> None:
    good = {**TOKEN, "secrets": [{**SECRET, "id": "b" * 12}]}
    tokens = Tokens.from_json(document(maria={**TOKEN, "console": console}, plc=good))
    assert (set(tokens.broken), set(tokens.by_name)) == ({"maria"}, {"plc"})
