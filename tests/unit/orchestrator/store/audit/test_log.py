"""The audit log: each record once, in one chain, whatever runs at the same time or is ended half-way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.audit.log import HEAD, AuditLog, entry_key
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.audit import NOWHERE, AuditEntry, Author, Pin
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import NOW_S, MemoryObjects

ANNA = Author(by="anna", host="line-pc", user="ops")


def open_log(objects: MemoryObjects) -> AuditLog:
    """The log as a new process has it."""
    return AuditLog(PromptStore(objects.client()), clock=lambda: NOW_S)


def actions(objects: MemoryObjects) -> list[str]:
    """Actions of all entries, the first first."""
    return [entry.record.action for entry in open_log(objects).newest()][::-1]


def test_entries_form_a_chain_from_the_first_that_names_the_log() -> None:
    objects = MemoryObjects()
    log = open_log(objects)
    first = log.append("gc", None, {}, {"removed": 3}, "weekly", ANNA)
    last = log.append("rule", "bolts", {"digest": None}, {"digest": "ab"}, "", ANNA)
    newest, middle, begin = log.newest()
    assert (begin.sequence, begin.previous, begin.record.action) == (1, NOWHERE.digest, "begin")
    assert middle.previous == Pin.of(1, objects.stored[entry_key(1)][0]).digest
    assert (newest.sequence, newest.previous) == (first.sequence + 1, first.digest)
    assert (newest.record.by, newest.record.user, newest.record.host) == ("anna", "ops", "line-pc")
    assert log.head() == last == log.noted_head()


def test_a_record_is_written_once_however_often_it_is_repeated() -> None:
    objects = MemoryObjects()
    record = open_log(objects).record("promote", "bolts", {}, {}, ANNA)
    at = open_log(objects).add(record)
    open_log(objects).append("gc", None, {}, {}, "", ANNA)
    assert open_log(objects).add(record) == at
    assert actions(objects) == ["begin", "promote", "gc"]


def test_writers_that_meet_at_any_call_all_get_their_entry() -> None:
    """Another process appends while one is at a call of the store: each call in turn."""
    for number in range(40):
        objects = MemoryObjects()
        open_log(objects).append("begin-of-test", None, {}, {}, "", ANNA)
        ours = objects.client()
        calls = iter(range(10_000))

        def meet(_: str, number: int = number, objects: MemoryObjects = objects, calls=calls) -> None:
            if next(calls) == number:
                open_log(objects).append("other", None, {}, {}, "", ANNA)

        ours.hook = meet
        AuditLog(PromptStore(ours)).append("ours", None, {}, {}, "", ANNA)
        if next(calls) <= number:
            assert number > 4, "no call was met"
            return
        assert sorted(actions(objects)) == ["begin", "begin-of-test", "other", "ours"], f"call {number}"
        numbers = open_log(objects).numbers()
        assert numbers == [1, 2, 3, 4]
        assert open_log(objects).head().sequence == 4
    raise AssertionError("an append makes no end of calls")


@pytest.mark.parametrize("spoil", [lambda data: b"{", lambda data: None])
def test_a_head_that_is_damaged_or_lost_is_found_anew(spoil: Callable[[bytes], bytes | None]) -> None:
    objects = MemoryObjects()
    for number in range(5):
        open_log(objects).append(f"a{'b' * number}", None, {}, {}, "", ANNA)
    data = spoil(b"")
    if data is None:
        del objects.stored[HEAD]
    else:
        objects.stored[HEAD] = data, 1.0
    assert open_log(objects).head().sequence == 6
    assert open_log(objects).append("gc", None, {}, {}, "", ANNA).sequence == 7


def test_a_head_that_is_late_costs_nothing_but_a_look() -> None:
    objects = MemoryObjects()
    open_log(objects).append("gc", None, {}, {}, "", ANNA)
    late = objects.stored[HEAD]
    open_log(objects).append("gc", None, {}, {}, "", ANNA)
    objects.stored[HEAD] = late
    assert open_log(objects).head().sequence == 3
    assert open_log(objects).append("gc", None, {}, {}, "", ANNA).sequence == 4
    assert open_log(objects).noted_head() == open_log(objects).head()


def test_an_entry_is_read_strictly_and_holds_no_secrets() -> None:
    objects = MemoryObjects()
    open_log(objects).append("gc", None, {}, {}, "see postgresql://me:hush@db/mlflow", ANNA)
    content = objects.stored[entry_key(2)][0]
    assert b"hush" not in content
    for wrong in (
        content.replace(b'"user"', b'"uzer"'),
        content.replace(b'"schema":1', b'"schema":"1"'),
        content.replace(b'"sequence":2', b'"sequence":"2"'),
        content[:-4],
    ):
        with pytest.raises(StoreError, match="ship audit --verify"):
            AuditEntry.from_json(wrong, "entry")


def test_what_is_too_long_for_an_entry_is_refused_before_the_change() -> None:
    log = open_log(MemoryObjects())
    with pytest.raises(StoreError, match="expected at most"):
        log.record("gc", None, {}, {"names": ["x" * 100] * 1000}, ANNA)


def test_many_writers_on_one_folder_make_one_chain(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        log = AuditLog(PromptStore(LocalObjects(tmp_path)))
        for number in range(5):
            log.append("gc", None, {}, {"writer": writer, "number": number}, "", ANNA)

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(8)))
    store = PromptStore(LocalObjects(tmp_path))
    found = verify(store)
    assert (found.breaks, found.head.sequence) == ((), 41)
    told = [entry.record.after for entry in AuditLog(store).newest() if entry.sequence > 1][::-1]
    assert sorted((one["writer"], one["number"]) for one in told) == [
        (writer, number) for writer in range(8) for number in range(5)
    ]
    for writer in range(8):
        assert [one["number"] for one in told if one["writer"] == writer] == list(range(5)), "in its order"
