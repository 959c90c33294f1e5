"""The audit log: each record once, in one chain, whatever runs at the same time or is ended half-way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.audit.log import HEAD, AuditLog, entry_key
from orchestrator.store.audit.search import Wanted, search, search_page
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.audit import NOWHERE, AuditEntry, Author, DamagedEntry, Pin
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


def num_reads(objects: MemoryObjects, look: Callable[[AuditLog], object]) -> int:
    """Calls of the store that a look at the log takes; an end comes to each."""
    reader, calls = objects.client(), iter(range(1000))
    reader.hook = lambda when: next(calls)
    look(AuditLog(PromptStore(reader)))
    return next(calls)


def test_an_entry_that_cannot_be_read_is_listed_as_damaged_for_those_who_may_see_all() -> None:
    objects = MemoryObjects()
    for task in ("bolts", "nuts", "caps"):
        open_log(objects).append("promote", task, {}, {}, "", ANNA)
    objects.stored[entry_key(3)] = b"{", 1.0
    for wanted in (Wanted(), Wanted(task="bolts"), Wanted(since_s=NOW_S)):
        found = [*search(open_log(objects), wanted)]
        [damaged] = [one for one in found if isinstance(one, DamagedEntry)]
        assert (damaged.sequence, "Invalid JSON" in damaged.problem) == (3, True)
        assert damaged in search_page(open_log(objects), wanted).entries
    some = Wanted(may_see=lambda task: task == "bolts")
    assert [one.sequence for one in search(open_log(objects), some)] == [2]
    assert actions(objects) == ["begin", "promote", "promote"]


def test_a_page_before_any_number_begins_at_the_end_of_the_log() -> None:
    objects = MemoryObjects()
    open_log(objects).append("gc", None, {}, {}, "", ANNA)
    for before in (3, 50, 10**12, 10**30):
        page = search_page(open_log(objects), Wanted(), before=before)
        assert ([entry.sequence for entry in page.entries], page.before) == ([2, 1], None)
    assert search_page(open_log(objects), Wanted(), before=1).entries == ()
    few = num_reads(objects, lambda log: search_page(log, Wanted(), before=10**12))
    assert few <= 20, "the head, and two entries"


def test_an_object_of_a_far_number_makes_nobody_read_up_to_it() -> None:
    objects = MemoryObjects()
    open_log(objects).append("gc", None, {}, {}, "", ANNA)
    far = 999_999_999_999
    objects.stored[entry_key(far)] = b"x", 1.0
    # Without the noted head a listing tells the end.
    del objects.stored[HEAD]
    assert actions(objects) == ["begin", "gc"]
    for max_read in (1, 50, 2000):
        page = search_page(open_log(objects), Wanted(), max_read=max_read)
        assert [one.sequence for one in page.entries] == [far, 2, 1][: 1 if max_read < 2000 else 3]
    assert [*open_log(objects).likely_numbers()] == [1, 2, far]
    found = verify(PromptStore(objects))
    assert [(one.place, one.kind) for one in found.breaks] == [
        (entry_key(3), "missing"),
        (entry_key(far), "damaged"),
    ]
    assert found.breaks[0].message == f"entries 3 to {far - 1} are not there, later ones are"


def test_a_listing_beside_writers_may_miss_entries_between_others() -> None:
    objects = MemoryObjects()
    for _ in range(5):
        open_log(objects).append("gc", None, {}, {}, "", ANNA)
    late = objects.client()
    late.list = lambda prefix: iter([entry_key(1), entry_key(6)])
    assert [*AuditLog(PromptStore(late)).likely_numbers()] == [1, 2, 3, 4, 5, 6]
