"""Every way to tamper with the log is found, with its place and kind."""

import json
from collections.abc import Callable

import pytest

from orchestrator.store.audit.log import HEAD, AuditLog, entry_key
from orchestrator.store.audit.verification import Verified, verify
from orchestrator.store.documents.audit import Author, Pin
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import World

ANNA = Author(by="anna", host="line-pc", user="ops")
Stored = dict[str, tuple[bytes, float]]


@pytest.fixture
def world() -> World:
    """Changes of two tasks, with a garbage collection between them and one at the end."""
    world = World()
    for task in ("bolts", "nuts"):
        for number in (1, 2, 3):
            world.add(task, number)
        world.rollouts().promote(task, 1)
    collect(world)
    world.rollouts().promote("bolts", 2)
    world.rollouts().start_canary("nuts", 2, 0.1)
    world.rollouts(by="ben").rollback("bolts")
    collect(world)
    return world


def collect(world: World) -> None:
    AuditLog(PromptStore(world.objects.client())).append("gc", None, {}, {"removed": 3}, "weekly", ANNA)


def check(world: World, *known: Pin) -> Verified:
    return verify(PromptStore(world.objects.client()), known)


def breaks(world: World, *known: Pin) -> list[tuple[str, str]]:
    return [(one.place, one.kind) for one in check(world, *known).breaks]


def edit(stored: Stored, number: int, change: Callable[[dict], None]) -> None:
    """Change an entry as a careful hand would: it stays a valid entry."""
    values = json.loads(stored[entry_key(number)][0])
    change(values)
    content = (json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n").encode()
    stored[entry_key(number)] = content, 1.0


def rename(values: dict) -> None:
    values["record"]["by"] = "nobody"


def chain_anew(stored: Stored, number: int) -> None:
    """Change an entry, and write all that follow anew so that every link fits, the head too."""
    edit(stored, number, rename)
    while entry_key(number + 1) in stored:
        pin = Pin.of(number, stored[entry_key(number)][0])
        edit(stored, number + 1, lambda values, pin=pin: values.update(previous=pin.digest))
        for later in range(number + 1, 100):
            if entry_key(later) in stored:
                edit(stored, later, lambda values, pin=pin: repin(values["record"], pin))
        number += 1
    pin = Pin.of(number, stored[entry_key(number)][0])
    stored[HEAD] = (json.dumps({"schema": 1, **vars(pin)}) + "\n").encode(), 1.0


def repin(record: dict, pin: Pin) -> None:
    if record["since"]["sequence"] == pin.sequence:
        record["since"] = vars(pin)


def test_a_log_that_was_left_alone_has_no_breaks(world: World) -> None:
    found = check(world)
    assert found.breaks == ()
    assert (found.num_waiting, found.num_unlogged_tasks) == (0, 0)
    log = AuditLog(world.store)
    assert found.head == log.head()
    told = [(entry.record.action, entry.record.task, entry.record.by) for entry in log.newest()][::-1]
    assert told[1][0] == "adopt"
    assert [one for one in told if one[0] not in ("begin", "adopt")] == [
        ("promote", "bolts", "anna"),
        ("promote", "nuts", "anna"),
        ("gc", None, "anna"),
        ("promote", "bolts", "anna"),
        ("canary", "nuts", "anna"),
        ("rollback", "bolts", "ben"),
        ("gc", None, "anna"),
    ]


def test_every_entry_that_is_removed_is_found(world: World) -> None:
    last = check(world).head.sequence
    for number in range(1, last + 1):
        kept = world.objects.stored.pop(entry_key(number))
        kind = "missing" if number < last else "truncated"
        assert (entry_key(number), kind) in breaks(world), f"entry {number}"
        world.objects.stored[entry_key(number)] = kept
    assert breaks(world) == []


def test_every_byte_that_is_changed_is_found(world: World) -> None:
    last = check(world).head.sequence
    for number in range(1, last + 1):
        content, time_s = world.objects.stored[entry_key(number)]
        for at in range(0, len(content), 41):
            changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            world.objects.stored[entry_key(number)] = changed, time_s
            places = {place for place, _ in breaks(world)}
            assert entry_key(number) in places, f"entry {number}, byte {at}"
        world.objects.stored[entry_key(number)] = content, time_s


def test_an_entry_that_was_changed_with_care_is_found(world: World) -> None:
    last = check(world).head.sequence
    for number in range(1, last + 1):
        kept = world.objects.stored[entry_key(number)]
        edit(world.objects.stored, number, rename)
        assert breaks(world) == [(entry_key(number), "changed")]
        world.objects.stored[entry_key(number)] = kept


def test_two_entries_that_changed_places_are_found(world: World) -> None:
    stored = world.objects.stored
    five, six = entry_key(5), entry_key(6)
    stored[five], stored[six] = stored[six], stored[five]
    assert {(five, "misplaced"), (six, "misplaced")} <= set(breaks(world))


def test_an_entry_that_was_put_in_is_found(world: World) -> None:
    stored = world.objects.stored
    last = check(world).head.sequence
    for number in range(last, 4, -1):
        stored[entry_key(number + 1)] = stored[entry_key(number)]
        edit(stored, number + 1, lambda values: values.update(sequence=values["sequence"] + 1))
    edit(stored, 5, lambda values: values["record"].update(record_id="0" * 32))
    assert breaks(world)


def test_an_entry_that_was_told_twice_is_found(world: World) -> None:
    stored = world.objects.stored
    head = check(world).head
    values = json.loads(stored[entry_key(4)][0])
    values.update(sequence=head.sequence + 1, previous=head.digest)
    content = (json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n").encode()
    stored[entry_key(head.sequence + 1)] = content, 1.0
    assert (entry_key(head.sequence + 1), "repeated") in breaks(world)


def test_a_tail_that_was_cut_off_is_found_wherever_it_begins(world: World) -> None:
    last = check(world).head.sequence
    for first in range(1, last + 1):
        kept = dict(world.objects.stored)
        for number in range(first, last + 1):
            del world.objects.stored[entry_key(number)]
        assert (entry_key(first), "truncated") in breaks(world)
        # The head is cut off, too: the documents know their last entries.
        del world.objects.stored[HEAD]
        found = breaks(world)
        assert ((entry_key(first), "truncated") in found) == (first < last), f"from {first}"
        world.objects.stored.clear()
        world.objects.stored.update(kept)


def test_a_tail_that_was_cut_off_leaves_a_gap_when_the_log_goes_on(world: World) -> None:
    last = check(world).head.sequence
    del world.objects.stored[entry_key(last)], world.objects.stored[entry_key(last - 1)]
    collect(world)
    [gap] = [one for one in check(world).breaks if one.kind == "missing"]
    assert gap.place == entry_key(last - 1)
    assert gap.message == f"entries {last - 1} to {last} are not there, later ones are"


def test_a_log_that_was_written_anew_does_not_fit_the_documents(world: World) -> None:
    last = check(world).head.sequence
    pin = check(world).head
    for number in range(1, last + 1):
        kept = dict(world.objects.stored)
        chain_anew(world.objects.stored, number)
        kinds = {kind for _, kind in breaks(world)}
        # No document knows the last entry, a garbage collection; a copy of its digest does.
        assert kinds == ({"changed"} if number < last else set()), f"from {number}"
        assert ("changed") in {kind for _, kind in breaks(world, pin)}
        world.objects.stored.clear()
        world.objects.stored.update(kept)


def test_a_log_that_was_begun_anew_is_found(world: World) -> None:
    for key in [key for key in world.objects.stored if key.startswith("audit/")]:
        del world.objects.stored[key]
    collect(world)
    assert breaks(world)


def test_a_change_that_went_past_the_log_is_found(world: World) -> None:
    content, time_s = world.objects.stored["rollouts/bolts.json"]
    values = json.loads(content)
    values["change"]["change_id"] = "f" * 32
    world.objects.stored["rollouts/bolts.json"] = json.dumps(values).encode(), time_s
    assert breaks(world) == [("rollouts/bolts.json", "unlogged")]


@pytest.mark.parametrize("key", ["audit/notes.txt", "audit/7.json", "audit/000000000000.json"])
def test_what_is_no_object_of_the_log_is_found(world: World, key: str) -> None:
    world.objects.stored[key] = b"{}", 1.0
    assert breaks(world) == [(key, "foreign")]


def test_a_document_that_cannot_be_read_is_said_and_stops_nothing(world: World) -> None:
    world.objects.stored["rollouts/bolts.json"] = b"{", 1.0
    assert breaks(world) == [("rollouts/bolts.json", "unreadable")]


def test_an_empty_store_has_an_empty_log_without_breaks() -> None:
    found = check(World())
    assert (found.breaks, found.head.sequence) == ((), 0)
