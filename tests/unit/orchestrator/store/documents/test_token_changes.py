"""Tokens are made, renewed and taken away, also by two at once, and no secret is ever kept."""

import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError, ObjectConflict, StoreError
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.token_changes import (
    TokenLog,
    change_tokens,
    create_token,
    revoke_token,
    rotate_token,
)
from orchestrator.store.documents.tokens import MAX_SECRETS, MAX_TIME_S, Scope, Tokens, parse_token
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.open import ObjectStore, open_objects
from orchestrator.store.objects.protocol import StoredObject
from orchestrator.store.prompt_store import MAX_TOKENS_BYTES, PromptStore

LINE_1 = Scope(predict=("line-1-*",))


def is_good(tokens: Tokens, text: str, now_s: float) -> bool:
    """Whether a token's text is accepted."""
    parsed = parse_token(text)
    assert parsed is not None
    found = tokens.find(parsed[0])
    return found is not None and found[2].is_made_of(parsed[1]) and found[2].is_live(now_s)


def test_a_new_token_is_good_until_it_expires() -> None:
    tokens, made = create_token(Tokens(), "plc", LINE_1, now_s=10.0, lifetime_s=5.0)
    assert is_good(tokens, made.text, 14.9)
    assert not is_good(tokens, made.text, 15.0)
    assert tokens.by_name["plc"].scope == LINE_1
    assert not is_good(tokens, made.text[:-1] + ("0" if made.text[-1] != "0" else "1"), 11.0)
    forever, made = create_token(tokens, "ops", Scope(admin=True), now_s=10.0)
    assert is_good(forever, made.text, 1e12)


def test_the_secret_is_in_nothing_that_is_kept_or_shown() -> None:
    tokens, made = create_token(Tokens(), "plc", LINE_1, now_s=10.0)
    _, secret = parse_token(made.text) or ("", "")
    assert len(bytes.fromhex(secret)) * 8 == 256
    assert secret.encode() not in tokens.to_json()
    assert secret not in repr(tokens)
    assert secret not in repr(made)


@pytest.mark.parametrize(
    ("name", "scope", "said"),
    [
        ("Line 1", LINE_1, "token name 'Line 1'"),
        ("plc", Scope(predict=("Line*",)), "--predict 'Line\\*'"),
        ("plc", Scope(), "good for nothing"),
    ],
)
def test_bad_names_and_scopes_are_refused(name: str, scope: Scope, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        create_token(Tokens(), name, scope, now_s=1.0)


def test_a_name_is_taken_until_its_token_has_expired() -> None:
    tokens, old = create_token(Tokens(), "plc", LINE_1, now_s=10.0, lifetime_s=5.0)
    with pytest.raises(StoreError, match="ship token rotate plc"):
        create_token(tokens, "plc", LINE_1, now_s=14.0)
    tokens, new = create_token(tokens, "plc", LINE_1, now_s=15.0)
    assert is_good(tokens, new.text, 16.0)
    assert not is_good(tokens, old.text, 14.0)


def test_a_rotated_token_keeps_its_scope_and_length_of_life() -> None:
    tokens, old = create_token(Tokens(), "plc", LINE_1, now_s=10.0, lifetime_s=100.0)
    tokens, new = rotate_token(tokens, "plc", now_s=50.0)
    assert tokens.by_name["plc"].scope == LINE_1
    assert not is_good(tokens, old.text, 50.0)
    assert is_good(tokens, new.text, 149.0)
    assert not is_good(tokens, new.text, 150.0)
    tokens, newest = rotate_token(tokens, "plc", now_s=200.0)
    assert is_good(tokens, newest.text, 299.0), "one that has expired is renewed"


def test_old_secrets_go_on_for_their_grace_and_no_longer() -> None:
    tokens, first = create_token(Tokens(), "plc", LINE_1, now_s=0.0, lifetime_s=100.0)
    tokens, second = rotate_token(tokens, "plc", now_s=10.0, grace_s=30.0)
    assert is_good(tokens, first.text, 39.0)
    assert not is_good(tokens, first.text, 40.0)
    tokens, third = rotate_token(tokens, "plc", now_s=20.0, grace_s=1000.0)
    assert not is_good(tokens, first.text, 40.0), "a longer grace gives nothing back"
    assert is_good(tokens, second.text, 109.0)
    assert not is_good(tokens, second.text, 110.0), "nor beyond its own end"
    tokens, fourth = rotate_token(tokens, "plc", now_s=21.0)
    assert [is_good(tokens, made.text, 21.0) for made in (first, second, third, fourth)] == [False] * 3 + [
        True
    ]
    assert len(tokens.by_name["plc"].secrets) == 1


def test_a_token_that_is_rotated_again_and_again_stays_readable() -> None:
    tokens, _ = create_token(Tokens(), "plc", LINE_1, now_s=0.0)
    for _ in range(2 * MAX_SECRETS):
        tokens, made = rotate_token(tokens, "plc", now_s=1.0, grace_s=60.0)
    assert Tokens.from_json(tokens.to_json()) == tokens
    assert is_good(tokens, made.text, 2.0)


def test_a_revoked_token_is_gone() -> None:
    tokens, made = create_token(Tokens(), "plc", LINE_1, now_s=0.0)
    tokens, _ = create_token(tokens, "ops", Scope(admin=True), now_s=0.0)
    tokens, taken = revoke_token(tokens, "plc")
    assert taken.scope == LINE_1
    assert not is_good(tokens, made.text, 1.0)
    assert list(tokens.by_name) == ["ops"]
    for change in (revoke_token, partial(rotate_token, now_s=1.0)):
        with pytest.raises(StoreError, match="no token 'plc'"):
            change(tokens, "plc")


def test_tokens_change_hands_by_etag(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    first, _ = create_token(Tokens(), "plc", LINE_1, now_s=0.0)
    second, _ = create_token(first, "ops", Scope(admin=True), now_s=0.0)
    assert store.read_tokens() is None
    etag = store.write_tokens(first, None)
    assert store.read_tokens() == (first, etag)
    newer = store.write_tokens(second, etag)
    assert store.read_tokens() == (second, newer)
    with pytest.raises(ObjectConflict):
        store.write_tokens(first, etag)
    with pytest.raises(ObjectConflict):
        store.write_tokens(first, None)


def test_what_could_not_be_read_again_is_not_written(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    change_tokens(store, lambda tokens: create_token(tokens, "plc", LINE_1, now_s=0.0))
    change_tokens(store, lambda tokens: rotate_token(tokens, "plc", now_s=1.0, grace_s=1e15))
    found = store.read_tokens()
    assert found is not None
    assert [secret.expires_s for secret in found[0].by_name["plc"].secrets] == [None, MAX_TIME_S]
    broken = Tokens(by_name={"plc": replace(found[0].by_name["plc"], secrets=())})
    with pytest.raises(StoreError, match="plc"):
        store.write_tokens(broken, found[1])
    assert store.read_tokens() == found


def spoil(tokens: Tokens, name: str, **change: object) -> Tokens:
    """The same with a change in the entry of one token."""
    document = json.loads(tokens.to_json())
    document["tokens"][name] |= change
    return Tokens.from_json(json.dumps(document).encode())


def make_two(lifetime_s: float | None = None) -> tuple[Tokens, str]:
    tokens, _ = create_token(Tokens(), "plc", LINE_1, now_s=0.0, lifetime_s=lifetime_s)
    tokens, made = create_token(tokens, "ops", Scope(admin=True), now_s=0.0)
    return tokens, made.text


def test_a_broken_token_is_mended_by_its_rotation() -> None:
    tokens, other = make_two(lifetime_s=100.0)
    [secret] = json.loads(tokens.to_json())["tokens"]["plc"]["secrets"]
    for change in ({"extra": 1}, {"secrets": [secret | {"sha256": "abc"}]}, {"secrets": [secret] * 9}):
        broken = spoil(tokens, "plc", **change)
        assert list(broken.broken) == ["plc"]
        mended, made = rotate_token(broken, "plc", now_s=50.0, grace_s=10.0)
        assert mended.by_name["plc"].scope == LINE_1
        assert [secret.expires_s for secret in mended.by_name["plc"].secrets] == [150.0]
        assert is_good(mended, made.text, 60.0)
        assert is_good(mended, other, 60.0)
        assert Tokens.from_json(mended.to_json()) == mended


@pytest.mark.parametrize(
    "change",
    [{"predict": ["A*"]}, {"admin": "yes"}, {"secrets": []}, {"secrets": 1}, {"secrets": [{"created_s": 0}]}],
)
def test_a_broken_token_gets_no_more_than_it_is_known_to_have_had(change: dict[str, object]) -> None:
    broken = spoil(make_two()[0], "plc", **change)
    with pytest.raises(StoreError, match=r"'plc'.*`ship token create` makes it anew"):
        rotate_token(broken, "plc", now_s=1.0)
    left, _ = revoke_token(broken, "plc")
    assert (list(left.by_name), left.broken) == (["ops"], {})


def test_a_change_of_another_token_leaves_a_broken_one_as_it_is(objects: ObjectStore) -> None:
    tokens, _ = make_two()
    entry = json.loads(tokens.to_json())["tokens"]["plc"] | {"extra": [1]}
    objects.put_new("tokens.json", spoil(tokens, "plc", extra=[1]).to_json())
    store = PromptStore(objects)
    log = TokenLog(log=AuditLog(store), action="token-rotate", author=Author(by="anna", host="desk"))
    change_tokens(store, lambda tokens: rotate_token(tokens, "ops", now_s=1.0), log)
    with pytest.raises(StoreError, match="token 'plc': 'extra'"):
        change_tokens(store, lambda tokens: create_token(tokens, "plc", LINE_1, now_s=1.0))
    assert json.loads(objects.get("tokens.json").data)["tokens"]["plc"] == entry
    change_tokens(store, lambda tokens: revoke_token(tokens, "plc"), replace(log, action="token-revoke"))
    assert list(json.loads(objects.get("tokens.json").data)["tokens"]) == ["ops"]
    told = next(AuditLog(store).newest())
    assert (told.record.action, told.record.after) == ("token-revoke", {})
    assert "extra" in told.record.before["plc"]["problem"]


def test_a_token_that_would_outlive_all_years_is_not_renewed() -> None:
    tokens, _ = create_token(Tokens(), "plc", LINE_1, now_s=0.0, lifetime_s=MAX_TIME_S)
    with pytest.raises(ManifestError, match="year 10000"):
        rotate_token(tokens, "plc", now_s=10.0)


def test_more_than_can_be_read_again_is_not_written(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    _, made = create_token(Tokens(), "plc", LINE_1, now_s=0.0)
    many = Tokens(by_name={f"plc-{number}": made.token for number in range(8000)})
    assert len(many.to_json()) > MAX_TOKENS_BYTES
    with pytest.raises(StoreError, match=r"8000 tokens take .* `ship token revoke`"):
        store.write_tokens(many, None)
    assert store.read_tokens() is None
    objects.put("tokens.json", many.to_json())
    with pytest.raises(StoreError, match="at most"):
        store.read_tokens()


class Interrupted(PromptStore):
    """A store that another process writes to, once, right before we do."""

    def __init__(self, objects: ObjectStore) -> None:
        super().__init__(objects)
        self.other: PromptStore | None = PromptStore(objects)

    def write_tokens(self, tokens: Tokens, if_match: str | None) -> str:
        other, self.other = self.other, None
        if other is not None:
            make(other, "ops")
        return super().write_tokens(tokens, if_match)


def make(store: PromptStore, name: str) -> None:
    change_tokens(store, lambda tokens: create_token(tokens, name, LINE_1, now_s=0.0))


@pytest.mark.parametrize("is_first", [True, False])
def test_the_loser_of_a_race_changes_what_the_winner_wrote(objects: ObjectStore, is_first: bool) -> None:
    if not is_first:
        make(PromptStore(objects), "plc-0")
    make(Interrupted(objects), "plc-1")
    found = PromptStore(objects).read_tokens()
    assert found is not None
    assert sorted(found[0].by_name) == ["ops", *([] if is_first else ["plc-0"]), "plc-1"]


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    store = PromptStore(open_objects(str(tmp_path)))
    names = [f"plc-{number}" for number in range(6)]
    threads = [threading.Thread(target=make, args=(store, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.read_tokens()
    assert found is not None
    assert sorted(found[0].by_name) == names


class LosesReplies:
    """A store that writes, and then reports a conflict."""

    def __init__(self) -> None:
        self.tokens: Tokens | None = None

    def read_tokens(self) -> tuple[Tokens, str] | None:
        return None if self.tokens is None else (self.tokens, "1")

    def write_tokens(self, tokens: Tokens, if_match: str | None) -> str:
        self.tokens = tokens
        raise ObjectConflict("there is one already")


def test_a_write_that_meets_itself_is_done() -> None:
    store = LosesReplies()
    made = change_tokens(store, lambda tokens: create_token(tokens, "plc", LINE_1, now_s=0.0))
    assert store.tokens is not None
    assert is_good(store.tokens, made.text, 1.0)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_write_that_another_writer_has_built_on_is_done(tmp_path: Path, is_first: bool) -> None:
    class BuiltOn(LocalObjects):
        """Has another token made on top of the next write, before its writer looks."""

        name: str | None = None

        def put_new(self, key: str, data: bytes) -> bool:
            is_made = super().put_new(key, data)
            self._build()
            return is_made

        def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
            etag = super().put(key, data, if_match=if_match)
            if self.name is not None:
                self._build()
                raise ObjectConflict("the reply was lost, and the next try met another's object")
            return etag

        def _build(self) -> None:
            name, self.name = self.name, None
            if name is not None:
                make(PromptStore(LocalObjects(self._root)), name)

    objects = BuiltOn(tmp_path)
    if not is_first:
        make(PromptStore(objects), "plc-0")
    store, objects.name = PromptStore(objects), "ops"
    made = change_tokens(store, lambda tokens: create_token(tokens, "plc-1", LINE_1, now_s=0.0))
    found = store.read_tokens()
    assert found is not None
    assert is_good(found[0], made.text, 1.0)
    objects.name = "more"
    change_tokens(store, lambda tokens: revoke_token(tokens, "plc-1"))
    found = store.read_tokens()
    assert found is not None
    assert sorted(found[0].by_name) == ["more", "ops", *([] if is_first else ["plc-0"])]


class NeverFirst(LosesReplies):
    """A store that another process always writes to first."""

    def write_tokens(self, tokens: Tokens, if_match: str | None) -> str:
        raise ObjectConflict("another writer changed it meanwhile")


def test_a_change_that_always_loses_is_refused() -> None:
    with pytest.raises(ObjectConflict, match="try again"):
        change_tokens(NeverFirst(), lambda tokens: create_token(tokens, "plc", LINE_1, now_s=0.0))


def test_a_damaged_file_is_told_and_stays(tmp_path: Path) -> None:
    objects = open_objects(str(tmp_path))
    objects.put("tokens.json", b"{")
    with pytest.raises(StoreError, match="tokens: Invalid JSON"):
        change_tokens(PromptStore(objects), lambda tokens: create_token(tokens, "plc", LINE_1, now_s=0.0))
    assert isinstance(found := objects.get("tokens.json"), StoredObject)
    assert found.data == b"{"
