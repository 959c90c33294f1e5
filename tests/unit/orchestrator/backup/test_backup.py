"""A backup holds all that it names, whatever is written meanwhile, and a restoration gives it back."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.backup.layout import (
    Manifest,
    blob_key,
    find_backups,
    find_misdated,
    read_manifest,
)
from orchestrator.backup.pruning import prune_backups
from orchestrator.backup.restoring import MARK, restore_backup
from orchestrator.backup.soundness import verify_backup
from orchestrator.backup.taking import LEFT_OUT, Taken, take_backup
from orchestrator.errors import RegistryError, StoreError
from orchestrator.registry.copying import RegistryCopy
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog, entry_key
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.token_changes import create_token
from orchestrator.store.documents.tokens import Scope, Tokens
from orchestrator.store.lease import StoreLease
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import (
    MemoryObjects,
    Stopped,
    World,
    make_catalog_writer,
    stop_at,
)

ANNA = Author(by="anna", host="line-pc", reason="")
COPY = RegistryCopy(form="json", content=b"all of MLflow")


class Place(MemoryObjects):
    """A place for backups."""

    url = "memory://place"

    def client(self) -> "Place":
        return Place(self.stored)


def make_world() -> World:
    """A task that serves its second version, with a token, rules on approvals, and objects of a moment."""
    world = World()
    for number in (1, 2):
        world.add_tuned(number)
        world.rollouts().promote("bolts", number)
    tokens, _ = create_token(Tokens(), "line-1", Scope(predict=("*",)), now_s=world.now_s)
    world.store.write_tokens(tokens, None)
    Approvals(world.store, AuditLog(world.store)).change_patterns(["nuts*"], [], ANNA)
    make_catalog_writer(world).update(looks_at_rollouts=True)
    world.store.snapshots.save("bolts", "a" * 64, b"state")
    world.objects.put("garbage/marked.json", b"{}")
    StoreLease(world.objects, "recorder.json").acquire()
    return world


def take(world: World, place: ObjectStore, **options: str) -> Taken:
    return take_backup(
        world.objects,
        place,
        lambda: COPY,
        clock=lambda: world.now_s,
        **options,  # type: ignore[arg-type]
    )


def restore(
    place: ObjectStore, manifest: Manifest, objects: ObjectStore, **options: bool
) -> list[RegistryCopy]:
    copies: list[RegistryCopy] = []
    restore_backup(place, manifest, objects, copies.append, **options)
    return copies


def contents(objects: MemoryObjects) -> dict[str, bytes]:
    return {key: data for key, (data, _) in objects.stored.items()}


def kept(world: World) -> dict[str, bytes]:
    return {key: data for key, data in contents(world.objects).items() if not key.startswith(LEFT_OUT)}


def test_all_comes_back_as_it_was() -> None:
    world, place, objects = make_world(), Place(), MemoryObjects()

    taken = take(world, place)

    assert taken.damage == ()
    assert verify_backup(place, taken.manifest) == []
    assert restore(place, read_manifest(place), objects) == [COPY]
    assert contents(objects) == kept(world)
    found = verify(PromptStore(objects))
    assert (found.breaks, found.head) == ((), AuditLog(world.store).head())


def test_metadata_is_what_cannot_be_rebuilt() -> None:
    world, place = make_world(), Place()
    label, picture = "reviews/bolts/0123.json", "kept/bolts/0123.image"
    for key in (label, picture):
        world.objects.client().put(key, b"{}")
    held = take(world, place, kind="metadata").manifest.objects
    assert {key.split("/")[0] for key in held} == {
        *("approvals.json", "audit", "catalog.json", "published", "registry.json", "reviews", "rollouts"),
        "tokens.json",
    }
    assert {label, picture} < set(take(world, place).manifest.objects)
    assert verify_backup(place, read_manifest(place)) == []


def test_a_second_backup_copies_what_is_new() -> None:
    world, place = make_world(), Place()
    first = take(world, place)
    assert first.num_copied == len({*kept(world).values(), COPY.content})
    again = take(world, place)
    assert again.num_copied == 0
    world.add_tuned(3)
    third = take(world, place)
    assert third.num_copied == 3, "a card, its tensors and a marker"
    assert third.manifest.num_bytes > again.manifest.num_bytes
    assert len(find_backups(place).done) == 3


def test_what_is_damaged_in_the_store_is_named_and_the_backup_before_keeps_it_whole() -> None:
    world, place = make_world(), Place()
    digest = world.store.read_catalog()[0].entries["bolts"].digest
    key = f"artifacts/{digest}/prompt.safetensors"
    whole, at_s = world.objects.stored[key]
    world.objects.stored[key] = whole[:-1] + b"!", at_s
    assert take(world, Place()).damage == (f"{key}: it is not the file that prompt.json describes",)
    world.objects.stored[key] = whole, at_s
    take(world, place)
    del world.objects.stored[f"artifacts/{digest}/prompt.json"]
    assert any("is not there" in problem for problem in take(world, place).damage)


def steps(world: World) -> Iterator[Callable[[], object]]:
    """What tunings, an endpoint and people do, a step at a time."""
    number = 3
    poller = make_catalog_writer(world)
    while True:
        yield lambda number=number: world.add_tuned(number)
        yield lambda number=number: world.rollouts().promote("bolts", number)
        yield lambda: poller.update(looks_at_rollouts=True)
        yield lambda: AuditLog(world.store).append("gc", None, {}, {}, "", ANNA)
        yield lambda: world.rollouts("ben").rollback("bolts")
        yield lambda: Approvals(world.store, AuditLog(world.store)).change_patterns(["a*"], [], ANNA)
        yield lambda: Approvals(world.store, AuditLog(world.store)).change_patterns([], ["a*"], ANNA)
        number += 1


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7, 11])
def test_a_copy_of_a_store_that_changes_is_consistent(every: int) -> None:
    world, place = make_world(), Place()
    world.store = PromptStore(world.objects.client())
    reader, lock = world.objects.client(), threading.Lock()
    todo, count = steps(world), iter(range(10**6))

    def work(when: str) -> None:
        with lock:
            number = next(count)
            if when == "before" and number % every == 0 and number < 120:
                next(todo)()

    reader.hook = work
    taken = take_backup(reader, place, lambda: COPY, clock=lambda: world.now_s)

    assert taken.damage == ()
    assert verify_backup(place, taken.manifest) == []
    restore(place, taken.manifest, objects := MemoryObjects())
    store = PromptStore(objects)
    catalog, _ = store.read_catalog()
    rollout, _ = store.read_rollout("bolts")
    named = {*catalog.digests, *(ref.digest for ref in rollout.versions.values())}
    assert all(store.fetch(digest) for digest in named)


def test_a_backup_that_was_ended_is_none_and_the_next_one_is_whole() -> None:
    world = make_world()
    first = take(world, place := Place())
    world.add_tuned(3)
    number = 0
    while True:
        torn = Place(dict(place.stored))
        torn.hook = stop_at(2 * number)
        try:
            take(world, torn)
            break
        except Stopped:
            torn.hook = lambda when: None
        found = find_backups(torn)
        assert found.done == (first.manifest.id,)
        assert read_manifest(torn).id == first.manifest.id
        assert take(world, torn).manifest.objects.keys() == kept(world).keys()
        assert verify_backup(torn, read_manifest(torn)) == []
        number += 1
    assert number > 5


def test_a_place_without_a_finished_backup_says_so() -> None:
    world, place = make_world(), Place()
    with pytest.raises(StoreError, match="no finished backup; `ship backup memory://place` takes one"):
        read_manifest(place)
    place.hook = stop_at(10)
    with pytest.raises(Stopped):
        take(world, place)
    place.hook = lambda when: None
    (torn,) = find_backups(place).unfinished
    with pytest.raises(StoreError, match=f"no finished backup; not finished, and so none: {torn}"):
        read_manifest(place)
    with pytest.raises(StoreError, match=f"no backup '{torn}'"):
        read_manifest(place, torn)


def test_a_registry_that_cannot_be_copied_leaves_no_backup() -> None:
    def refuse() -> RegistryCopy:
        raise RegistryError("MLflow is down")

    world, place = make_world(), Place()
    with pytest.raises(RegistryError, match="down"):
        take_backup(world.objects, place, refuse)
    assert find_backups(place).done == ()


def test_a_store_that_is_not_empty_is_left_as_it_is() -> None:
    world, place = make_world(), Place()
    manifest = take(world, place).manifest
    other = MemoryObjects()
    other.put("tokens.json", b"theirs")
    with pytest.raises(StoreError, match=r"expected an empty store, it holds tokens\.json"):
        restore(place, manifest, other)
    assert contents(other) == {"tokens.json": b"theirs"}
    other.put(MARK, json.dumps({"schema": 1, "backup": "another"}).encode())
    with pytest.raises(StoreError, match="expected an empty store"):
        restore(place, manifest, other)
    restore(place, manifest, other, force=True)
    assert contents(other) == kept(world)


def test_a_restoration_that_was_ended_goes_on_and_serves_nothing_before_its_end() -> None:
    world, place = make_world(), Place()
    manifest = take(world, place).manifest
    number = 0
    while True:
        objects = MemoryObjects()
        objects.hook = stop_at(number)
        try:
            restore(place, manifest, objects)
            break
        except Stopped:
            objects.hook = lambda when: None
        assert set(objects.stored) <= {*manifest.objects, MARK}
        if "catalog.json" in objects.stored:
            assert manifest.objects.keys() <= objects.stored.keys()
        assert restore(place, manifest, objects) == [COPY]
        assert contents(objects) == kept(world)
        number += 7
    assert number > 50


def test_the_registry_is_left_out_where_it_is_not_wanted() -> None:
    world, place, objects = make_world(), Place(), MemoryObjects()
    manifest = take(world, place).manifest
    assert not restore_backup(place, manifest, objects, None).has_registry


def blob_of(manifest: Manifest, key: str) -> str:
    return blob_key(manifest.objects[key].sha256)


def test_every_damage_of_a_backup_is_found() -> None:
    world, place = make_world(), Place()
    manifest = take(world, place).manifest
    assert manifest.registry is not None
    for blob in [*(blob_of(manifest, key) for key in manifest.objects), blob_key(manifest.registry.sha256)]:
        content, at_s = place.stored.pop(blob)
        assert verify_backup(place, manifest), f"{blob} is gone"
        place.stored[blob] = content[:-1] + bytes([content[-1] ^ 1]) if content else b"!", at_s
        assert verify_backup(place, manifest), f"{blob} is changed"
        with pytest.raises(StoreError, match=r"damaged|expected"):
            restore(place, manifest, MemoryObjects())
        place.stored[blob] = content, at_s
    assert verify_backup(place, manifest) == []
    name = f"backups/{manifest.id}/manifest.json"
    content, at_s = place.stored[name]
    place.stored[name] = content.replace(b'"all"', b'"metadata"'), at_s
    with pytest.raises(StoreError, match="damaged or changed"):
        read_manifest(place)


def test_a_break_of_the_audit_log_is_found() -> None:
    world, place = make_world(), Place()
    del world.objects.stored[entry_key(3)]
    manifest = take(world, place).manifest
    assert [problem.split(":")[1].strip() for problem in verify_backup(place, manifest)] == [entry_key(3)]


def test_an_object_of_a_far_number_in_the_audit_log_is_copied_and_told() -> None:
    world, place = make_world(), Place()
    far = entry_key(999_999_999_999)
    world.objects.stored[far] = b"x", 1.0
    manifest = take(world, place).manifest
    assert far in manifest.objects
    assert [problem.split(": ")[1:3] for problem in verify_backup(place, manifest)] == [
        [entry_key(AuditLog(world.store).head().sequence + 1), "missing"],
        [far, "damaged"],
    ]


@pytest.mark.parametrize("place", ["store/backups", ".", "store"])
def test_a_place_in_the_store_or_around_it_is_refused(tmp_path: Path, place: str) -> None:
    objects = LocalObjects(tmp_path / "store")
    objects.put_new("tokens.json", b"{}")
    with pytest.raises(StoreError, match="apart from the store"):
        take_backup(objects, LocalObjects(tmp_path / place), lambda: None)
    assert list(objects.list("")) == ["tokens.json"]


def test_old_backups_go_and_those_that_stay_are_whole() -> None:
    world, place = make_world(), Place()
    ids = []
    for number in (3, 4, 5):
        world.now_s += 60.0
        world.add_tuned(number)
        ids.append(take(world, place).manifest.id)
        world.objects.put("stats/odd.json", f"{number}".encode())
    before = len(place.stored)
    assert prune_backups(place, 2, clock=lambda: world.now_s) == (ids[0],)
    assert find_backups(place).done == tuple(ids[1:])
    assert len(place.stored) < before
    for id_ in ids[1:]:
        assert verify_backup(place, read_manifest(place, id_)) == []
    assert prune_backups(place, 2, clock=lambda: world.now_s) == ()


def test_a_backup_with_a_clock_ahead_takes_no_others_place() -> None:
    world, place = make_world(), Place()
    begin_s = world.now_s
    # One night the clock was ten years ahead.
    world.now_s = begin_s + 10 * 365 * 86400.0
    ahead = take(world, place).manifest.id
    for night in (1, 2, 3):
        world.now_s = begin_s + night * 86400.0
        world.objects.put("stats/odd.json", f"{night}".encode())
        last = take(world, place).manifest.id
        removed = prune_backups(place, 1, clock=lambda: world.now_s, taken=last)
        assert len(removed) == (night > 1)
        assert find_backups(place).done == (last, ahead)
        assert find_misdated((last, ahead), world.now_s) == (ahead,)
        assert read_manifest(place, clock=lambda: world.now_s).id == last
        for id_ in (last, ahead):
            assert verify_backup(place, read_manifest(place, id_)) == []
    assert read_manifest(place, clock=lambda: begin_s - 86400.0).id == ahead, "all are later: the last one"


def test_the_backup_that_was_just_taken_stays_beside_one_of_a_host_some_minutes_ahead() -> None:
    world, place = make_world(), Place()
    world.now_s += 600.0
    theirs = take(world, place).manifest.id
    world.now_s -= 600.0
    ours = take(world, place).manifest.id
    assert prune_backups(place, 1, clock=lambda: world.now_s, taken=ours) == ()
    assert find_backups(place).done == (ours, theirs)
    assert verify_backup(place, read_manifest(place, ours)) == []


def test_no_content_goes_while_another_backup_is_under_way() -> None:
    world, place = make_world(), Place()
    for content in (b"old", b"new"):
        world.objects.put("stats/odd.json", content)
        take(world, place)
        world.now_s += 1.0
    other = "20261127T030000Z-0123abcd"
    at_s = world.now_s
    place.stored[f"backups/{other}/begun.json"] = b"{}", at_s
    blobs = set(place.list("blobs/"))
    assert len(prune_backups(place, 1, clock=lambda: at_s + 60.0)) == 1
    assert set(place.list("blobs/")) == blobs
    prune_backups(place, 1, clock=lambda: at_s + 2 * 86400.0)
    assert find_backups(place).unfinished == ()
    assert set(place.list("blobs/")) < blobs
    assert verify_backup(place, read_manifest(place)) == []
