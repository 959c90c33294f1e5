"""A change that took effect is logged once, and one that did not is not, wherever it is ended."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from orchestrator.errors import RegistryError, StoreError
from orchestrator.registry.catalog_writer import CatalogWriter
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.ownership import adopt
from orchestrator.registry.rollouts import Rollouts
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog, entry_key
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.audit import AuditRecord, Author
from orchestrator.store.documents.token_changes import TokenLog, change_tokens, create_token, revoke_token
from orchestrator.store.documents.tokens import Scope
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.protocol import StoredObject
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.settling import log_documents
from tests.unit.orchestrator.registry.factory import NOW_S, MemoryObjects, World
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry

ANNA = Author(by="anna", host="line-pc", user="ops")


class Killed(BaseException):
    """The process is ended here."""


def make_world() -> World:
    """Four versions of bolts, the second of which serves in place of the first, and a shadow."""
    world = World()
    for number in (1, 2, 3, 4):
        world.add(number=number)
    world.rollouts().promote("bolts", 1)
    world.rollouts().promote("bolts", 2)
    world.rollouts().start_shadow("bolts", 1)
    return world


def records(world: World, action: str | None = None) -> list[AuditRecord]:
    """Records of the log, the first first."""
    found = [entry.record for entry in AuditLog(world.store).newest()][::-1]
    return [record for record in found if action in (None, record.action)]


def judge(promote: bool) -> Callable[..., GateDecision]:
    return lambda *_: GateDecision(promote=promote, reason="measured", gate=None if promote else "probe")


def gate(number: int, promote: bool) -> Callable[[World, Rollouts], object]:
    def admit(world: World, rollouts: Rollouts) -> object:
        return rollouts.admit("bolts", world.fresh_registry().version("bolts", number), judge(promote))

    return admit


def move_by_hand(world: World, rollouts: Rollouts) -> None:
    world.move_by_hand("champion", 3)
    rollouts.settle("bolts")


def delete(world: World, rollouts: Rollouts) -> None:
    world.mlflow.models.pop("ship.bolts", None)
    rollouts.drop("bolts")


CHANGES: dict[str, Callable[[World, Rollouts], object]] = {
    "promote": lambda world, rollouts: rollouts.promote("bolts", 3),
    "rollback": lambda world, rollouts: rollouts.rollback("bolts"),
    "canary": lambda world, rollouts: rollouts.start_canary("bolts", 3, 0.1),
    "shadow": lambda world, rollouts: rollouts.start_shadow("bolts", 3),
    "stop-shadow": lambda world, rollouts: rollouts.stop_shadow("bolts"),
    "gate": gate(3, promote=True),
    "gate, withheld": gate(3, promote=False),
    "gate, nothing changes": gate(1, promote=False),
    "mlflow": move_by_hand,
    "drop": delete,
}


def poll(world: World) -> None:
    """Two looks of the poller, later, as a new process makes them."""
    for _ in range(2):
        with suppress(RegistryError):
            store = PromptStore(world.objects.client())
            writer = CatalogWriter(
                make_registry(world.mlflow), store, world.rollouts(by="poller", store=store)
            )
            writer.update(may_drop=True, looks_at_rollouts=True)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_was_ended_after_any_call_is_logged_once_or_was_not_made(name: str) -> None:
    action = name.partition(",")[0]
    for number in range(60):
        world = make_world()
        before = world.store.read_rollout("bolts")[0]
        num_before = len(records(world))
        objects = world.objects.client()
        calls: Iterator[int] = iter(range(10_000))

        def kill(_: str, number: int = number, calls: Iterator[int] = calls) -> None:
            if next(calls) == number:
                raise Killed

        objects.hook = lambda at, kill=kill: kill(at) if at == "after" else None
        world.mlflow.after = kill
        with suppress(Killed):
            CHANGES[name](world, world.rollouts(store=PromptStore(objects)))
        ended = next(calls) > number
        world.mlflow.after = lambda _: None
        if name != "mlflow":
            poll(world)
            found = world.store.read_rollout("bolts")[0]
            num_made = found.generation - before.generation
            told = records(world)[num_before:]
            if name != "gate, nothing changes":
                assert len(told) == num_made, f"ended at call {number}: {[one.action for one in told]}"
            assert verify(world.store).breaks == (), f"ended at call {number}"
            assert verify(world.store).num_waiting == 0, f"ended at call {number}"
        with suppress(RegistryError):
            # What was ended is repeated, as its user or the recorder does.
            if ended and (name != "rollback" or not num_made):
                CHANGES[name](world, world.rollouts())
        poll(world)
        assert Counter(record.action for record in records(world)[num_before:])[action] == 1, f"call {number}"
        assert verify(world.store).breaks == ()
        if not ended:
            assert number > 4, "no call was ended"
            return
    raise AssertionError("a change makes no end of calls")


def test_a_change_of_a_rollout_is_told_with_who_when_where_from_what_to_what_and_why() -> None:
    world = make_world()
    rollouts = Rollouts(
        world.fresh_registry(),
        PromptStore(world.objects.client()),
        Author(by="anna", host="line-pc", user="ops", reason="new camera"),
        clock=lambda: NOW_S + 5,
    )
    rollouts.promote("bolts", 3)
    told = records(world)[-1]
    digests = {number: world.registry.version("bolts", number).digest for number in (1, 2, 3)}
    assert (told.action, told.task, told.reason, told.time_s) == ("promote", "bolts", "new camera", NOW_S + 5)
    assert (told.by, told.user, told.host) == ("anna", "ops", "line-pc")
    assert told.before == {
        "champion": {"version": 2, "digest": digests[2]},
        "previous": {"version": 1, "digest": digests[1]},
        "generation": 3,
    }
    assert told.after == {
        "champion": {"version": 3, "digest": digests[3]},
        "previous": {"version": 2, "digest": digests[2]},
        "generation": 4,
    }
    assert told.record_id == world.store.read_rollout("bolts")[0].change.change_id


def test_a_move_in_mlflows_page_is_told_without_an_author() -> None:
    world = make_world()
    world.move_by_hand("champion", 3)
    poll(world)
    told = records(world)[-1]
    assert (told.action, told.by, told.user) == ("mlflow", "unknown", "")
    assert told.after["champion"]["version"] == 3


def test_a_change_without_mlflow_is_in_the_log_at_once() -> None:
    world = make_world()

    def down(_: str) -> None:
        raise MlflowException("did not answer")

    world.mlflow.before = down
    world.rollouts().rollback("bolts")
    assert records(world)[-1].action == "rollback"
    assert verify(world.store).breaks == ()
    poll(world)
    assert [record.action for record in records(world)].count("rollback") == 1


def test_a_log_that_cannot_be_written_holds_up_no_rollback_and_is_made_up_for() -> None:
    world = make_world()

    class Deaf(MemoryObjects):
        is_deaf = True

        def put_new(self, key: str, data: bytes) -> bool:
            if self.is_deaf and key.startswith("audit/"):
                raise StoreError("audit/: access denied")
            return super().put_new(key, data)

    num_before = len(records(world))
    deaf = PromptStore(Deaf(world.objects.stored))
    world.rollouts(store=deaf).rollback("bolts")
    world.rollouts(by="ben", store=deaf).start_shadow("bolts", 3)
    assert world.aliases()["champion"] == 1
    assert len(records(world)) == num_before
    assert verify(world.store).num_waiting == 2
    poller = CatalogWriter(make_registry(world.mlflow), deaf)
    found = poller.update(looks_at_rollouts=True)
    assert "audit log" in found.problems["bolts"]
    deaf.objects.is_deaf = False
    poller.update(looks_at_rollouts=True)
    told = [(record.action, record.by) for record in records(world)[num_before:]]
    assert told == [("rollback", "anna"), ("shadow", "ben")]
    assert (verify(world.store).num_waiting, verify(world.store).breaks) == (0, ())


def test_the_poller_asks_the_store_no_more_for_the_log_in_the_steady_state() -> None:
    world = make_world()
    poll(world)
    asked: list[str] = []

    class Listening(MemoryObjects):
        def get(self, key: str, *, max_bytes: int | None = None) -> object:
            asked.append(key)
            return super().get(key, max_bytes=max_bytes)

    store = PromptStore(Listening(world.objects.stored))
    writer = CatalogWriter(make_registry(world.mlflow), store)
    for _ in range(3):
        assert not writer.update(looks_at_rollouts=True).is_written
    assert asked
    assert not [key for key in asked if key.startswith(("audit/", "approvals"))]


STORE_CHANGES: dict[str, Callable[[PromptStore], object]] = {
    "token-create": lambda store: change_tokens(
        store,
        lambda tokens: create_token(tokens, "plc-2", Scope(predict=("*",)), now_s=NOW_S),
        TokenLog(log=AuditLog(store), action="token-create", author=ANNA),
    ),
    "token-revoke": lambda store: change_tokens(
        store,
        lambda tokens: revoke_token(tokens, "plc-1"),
        TokenLog(log=AuditLog(store), action="token-revoke", author=ANNA),
    ),
    "adopt": lambda store: adopt(store, make_registry(FakeMlflow(identity="b" * 32)), author=ANNA),
    "approvals": lambda store: Approvals(store, AuditLog(store)).change_patterns(["bolts"], [], ANNA),
}


def content_of(world: World) -> list[bytes | None]:
    """The documents that a change of the store changes, without their trails."""
    tokens, owner = world.store.read_tokens(), world.store.read_owner()
    rules = Approvals(world.store, AuditLog(world.store)).read()
    return [tokens and tokens[0].by_name, owner and owner[0].registry, rules.patterns]


@pytest.mark.parametrize("action", STORE_CHANGES)
def test_a_change_of_the_store_that_was_ended_after_any_call_is_logged_once(action: str) -> None:
    for number in range(40):
        world = make_world()
        change_tokens(
            world.store, lambda tokens: create_token(tokens, "plc-1", Scope(predict=("*",)), now_s=NOW_S)
        )
        before, num_before = content_of(world), len(records(world))
        objects = world.objects.client()
        calls: Iterator[int] = iter(range(10_000))

        def kill(at: str, number: int = number, calls: Iterator[int] = calls) -> None:
            if at == "after" and next(calls) == number:
                raise Killed

        objects.hook = kill
        with suppress(Killed):
            STORE_CHANGES[action](PromptStore(objects))
        ended = next(calls) > number
        log_documents(world.store)
        is_made = content_of(world) != before
        assert [one.action for one in records(world)[num_before:]] == [action] * is_made, f"call {number}"
        assert (verify(world.store).breaks, verify(world.store).num_waiting) == ((), 0)
        if not ended:
            assert is_made
            assert number > 4, "no call was ended"
            return
    raise AssertionError("a change makes no end of calls")


def test_a_token_is_told_without_its_secret() -> None:
    world = make_world()
    made = STORE_CHANGES["token-create"](world.store)
    told = records(world)[-1]
    token_id = made.token.secrets[0].token_id
    assert told.after["plc-2"] == {
        "predict": ["*"],
        "metrics": False,
        "admin": False,
        "secrets": {token_id: None},
    }
    written = b"".join(data for key, (data, _) in world.objects.stored.items() if key.startswith("audit/"))
    secret = made.text.rpartition("_")[2]
    assert secret.encode() not in written
    assert made.token.secrets[0].sha256.encode() not in written


def test_the_entry_of_a_change_is_the_one_that_its_rollout_pins() -> None:
    world = make_world()
    trail = world.store.read_rollout("bolts")[0].trail
    assert trail.waiting == ()
    content = world.objects.stored[entry_key(trail.last.sequence)][0]
    assert b'"action":"shadow"' in content


class DyingObjects(LocalObjects):
    """A folder whose process is killed after one of its calls, or within a write before its file has a name.

    Args:
        root: The folder.
        dies_at: Number of the call.
    """

    def __init__(self, root: Path, dies_at: int) -> None:
        super().__init__(root)
        self._calls, self._dies_at = 0, dies_at

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        try:
            return super().get(key, max_bytes=max_bytes)
        finally:
            self._count()

    def put_new(self, key: str, data: bytes) -> bool:
        self._count()
        try:
            return super().put_new(key, data)
        finally:
            self._count()

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        try:
            return super().put(key, data, if_match=if_match)
        finally:
            self._count()

    def _count(self) -> None:
        self._calls += 1
        if self._calls == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["promote", "token-create"])
def test_kill_9_at_any_call_leaves_a_log_that_is_whole_once_the_next_look_has_been(
    tmp_path: Path, name: str
) -> None:
    world = World(LocalObjects(tmp_path / "before"))
    for version in (1, 2, 3):
        world.add(number=version)
    world.rollouts(store=world.store).promote("bolts", 1)
    num_before, before = len(records(world)), made(world)
    for number in range(1, 60):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "before", root)
        # MLflow is in memory: what the child does there is lost, as a request that never arrives.
        world.mlflow.models["ship.bolts"].aliases = {"champion": "1"}
        child = os.fork()
        if child == 0:
            try:
                store = PromptStore(DyingObjects(root, number))
                if name in CHANGES:
                    CHANGES[name](world, world.rollouts(store=store))
                else:
                    STORE_CHANGES[name](store)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        world.store = PromptStore(LocalObjects(root))
        CatalogWriter(world.fresh_registry(), world.store).update(looks_at_rollouts=True)
        log_documents(world.store)
        told = [record.action for record in records(world)[num_before:]]
        assert told == [name] * (made(world) != before), f"killed at call {number}"
        assert (verify(world.store).breaks, verify(world.store).num_waiting) == ((), 0)
        if not os.WIFSIGNALED(status):
            assert told
            assert number > 4, "it was never killed"
            return
    raise AssertionError("a change makes no end of calls")


def made(world: World) -> list[object]:
    """What changes change, apart from their trails."""
    return [world.store.read_rollout("bolts")[0].generation, *content_of(world)]
