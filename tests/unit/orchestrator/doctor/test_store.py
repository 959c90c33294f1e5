"""Faults of a store, each planted and found, and not found where it is not."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.doctor.row import Place
from orchestrator.doctor.store import SCRATCH, check_audit, check_store, check_tokens
from orchestrator.errors import StoreError
from orchestrator.store.audit.log import entry_key
from orchestrator.store.documents.token_changes import create_token
from orchestrator.store.documents.tokens import Scope, Tokens
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.protocol import ListedObject, ObjectStore
from tests.unit.orchestrator.doctor.factory import make_place, told
from tests.unit.orchestrator.registry.factory import MemoryObjects, World, make_bolts

NOW_S, DAY_S = 1_800_000_000.0, 86400.0


class Objects(MemoryObjects):
    """A store with one fault."""

    def __init__(self, fault: str = "", modified_s: float = NOW_S) -> None:
        super().__init__()
        self._fault, self._modified_s = fault, modified_s

    def put_new(self, key: str, data: bytes) -> bool:
        if self._fault == "read-only":
            raise StoreError("AccessDenied")
        if self._fault == "overwrites":
            self.put(key, data)
            return True
        return super().put_new(key, data)

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        return super().put(key, data, if_match=None if self._fault == "replaces" else if_match)

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        if self._fault == "lists nothing":
            return
        for found in super().scan(prefix):
            yield ListedObject(key=found.key, num_bytes=found.num_bytes, modified_s=self._modified_s)

    def delete(self, key: str) -> None:
        if self._fault != "deletes nothing":
            super().delete(key)


def place_of(tmp_path: Path, objects: ObjectStore, **changes: object) -> Place:
    return make_place(tmp_path, objects=lambda: objects, clock=lambda: NOW_S, **changes)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", []),
        ("overwrites", [("fail", "writes")]),
        ("replaces", [("fail", "writes")]),
        ("lists nothing", [("fail", "listing")]),
        ("deletes nothing", [("fail", "deletion")]),
    ],
)
def test_a_store_that_is_none(tmp_path: Path, fault: str, expected: list[tuple[str, str]]) -> None:
    objects = Objects(fault)
    assert told(check_store(place_of(tmp_path, objects))) == expected
    if fault != "deletes nothing":
        assert objects.stored == {}, "nothing is left"


def test_a_store_that_takes_no_writes(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="AccessDenied"):
        list(check_store(place_of(tmp_path, Objects("read-only"))))


@pytest.mark.parametrize(
    ("ahead_s", "expected"), [(0, []), (1.5, []), (30, []), (-30, []), (90, "ahead of"), (-3600, "behind")]
)
def test_a_clock_that_differs(tmp_path: Path, ahead_s: float, expected: str | list[str]) -> None:
    rows = list(check_store(place_of(tmp_path, Objects(modified_s=NOW_S + ahead_s))))
    if not expected:
        assert told(rows) == []
    else:
        assert told(rows) == [("warn", "clock")]
        (row,) = (row for row in rows if row.what == "clock")
        assert f" {expected} ours" in row.found


def test_a_store_that_is_slow(tmp_path: Path) -> None:
    times_s = iter(range(0, 1000, 2))
    rows = check_store(place_of(tmp_path, Objects(), monotonic=lambda: float(next(times_s))))
    assert told(rows) == [("warn", "latency")]


def test_a_store_in_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    place = place_of(tmp_path, LocalObjects(folder), store=str(folder))
    assert told(check_store(place)) == [("skipped", "store")]
    assert not folder.exists()
    folder.mkdir()
    rows = list(check_store(place))
    assert next(row.what for row in rows if row.state == "ok") == "writes"
    assert list(folder.iterdir()) == []


def test_a_scratch_object_is_removed_whatever_goes_wrong(tmp_path: Path) -> None:
    class Broken(Objects):
        def get(self, key: str, *, max_bytes: int | None = None) -> object:
            assert key.startswith(SCRATCH)
            raise StoreError("torn")

    with pytest.raises(StoreError, match="torn"):
        list(check_store(place_of(tmp_path, objects := Broken())))
    assert objects.stored == {}


def tokens_of(world: World, *, expires_s: float | None = None, **more: float) -> None:
    tokens = Tokens()
    for name, ends_s in {"line-1": expires_s, **more}.items():
        tokens, _ = create_token(
            tokens,
            name,
            Scope(predict=("*",)),
            now_s=world.now_s - 30 * DAY_S,
            lifetime_s=None if ends_s is None else ends_s - world.now_s + 30 * DAY_S,
        )
    world.store.write_tokens(tokens, None)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda world: None, [("warn", "no client has a valid one")]),
        (lambda world: tokens_of(world), []),
        (
            lambda world: tokens_of(world, expires_s=world.now_s - 1),
            [("warn", "no client has a valid one"), ("warn", "expired: line-1")],
        ),
        (lambda world: tokens_of(world, old=world.now_s - 1), [("warn", "expired: old")]),
        (
            lambda world: tokens_of(world, soon=world.now_s + 2 * DAY_S),
            [("warn", "about to expire, the first in 48.0 h: soon")],
        ),
        (lambda world: tokens_of(world, later=world.now_s + 9 * DAY_S), []),
    ],
)
def test_tokens(tmp_path: Path, make: Callable[[World], None], expected: list[tuple[str, str]]) -> None:
    world = World()
    make(world)
    rows = [row for row in check_tokens(make_place(tmp_path, world)) if row.state != "ok"]
    assert [(row.state, row.found) for row in rows] == expected
    assert all(row.advice for row in rows)


def test_a_token_that_is_broken(tmp_path: Path) -> None:
    world = World()
    tokens_of(world)
    content, at_s = world.objects.stored["tokens.json"]
    values = json.loads(content)
    values["tokens"]["line-2"] = {"secrets": "none"}
    world.objects.stored["tokens.json"] = json.dumps(values).encode(), at_s
    (row,) = (row for row in check_tokens(make_place(tmp_path, world)) if row.state != "ok")
    assert (row.state, row.found.split(":")[0]) == ("fail", "'line-2'")
    world.objects.stored["tokens.json"] = b"{", at_s
    with pytest.raises(StoreError, match=r"restore tokens\.json"):
        list(check_tokens(make_place(tmp_path, world)))


def test_an_audit_log_that_was_changed(tmp_path: Path) -> None:
    world = make_bolts()
    assert told(check_audit(make_place(tmp_path, world))) == []
    del world.objects.stored[entry_key(2)]
    (row,) = (row for row in check_audit(make_place(tmp_path, world)) if row.state == "fail")
    assert row.found.startswith(f"{entry_key(2)}: missing")
    assert row.advice == "ship audit --verify"
