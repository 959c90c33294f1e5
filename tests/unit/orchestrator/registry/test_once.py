"""One publication makes one run and one version, whatever is repeated, by one recorder or by two."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import RegistryError
from orchestrator.events import Event
from orchestrator.registry.advice import Advice
from orchestrator.registry.record_writer import RecordWriter
from orchestrator.registry.recorder import LEASE, Recorder
from orchestrator.registry.runs import Point, RunLog, TaskRun
from orchestrator.store.lease import LEASE_S, StoreLease
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry
from tests.unit.orchestrator.store.factory import make_key, tune


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose runs have neither curves nor files, which are another matter."""

    def log(self: RunLog, run: TaskRun, points: Sequence[Point], params: Any, tags: Any) -> None:
        run.params.update(params)

    def set_status(self: RunLog, run: TaskRun, status: str, time_s: float) -> None:
        run.status = status
        self._session.client.runs[run.run_id].info.status = status

    monkeypatch.setattr(RunLog, "log", log)
    monkeypatch.setattr(RunLog, "log_files", lambda self, run, files: None)
    monkeypatch.setattr(RunLog, "set_status", set_status)
    return World()


def write(world: World, key: str, events: Sequence[Event]) -> None:
    RecordWriter(world.fresh_registry(), PromptStore(world.objects.client())).write("bolts", key, events)


def check_once(world: World, num_keys: int) -> None:
    versions = world.mlflow.versions["ship.bolts"].values()
    digests = [version.tags["ship.digest"] for version in versions]
    assert len(digests) == len(set(digests)) == num_keys
    assert len(world.mlflow.runs) == num_keys
    assert {version.run_id for version in versions} == set(world.mlflow.runs)
    assert {run.info.status for run in world.mlflow.runs.values()} == {"FINISHED"}


@pytest.mark.parametrize(
    "call", ["create_run", "create_model_version", "set_registered_model_alias", "set_model_version_tag"]
)
def test_a_request_that_mlflows_client_repeats_has_one_effect(world: World, call: str) -> None:
    world.mlflow.repeats = {call}
    for number, accuracy in enumerate((0.90, 0.93)):
        key = make_key(f"k{number}")
        write(world, key, tune(world.store, key=key, accuracy=accuracy))
    check_once(world, 2)
    # MLflow gives no number again, also not that of the version that was made twice.
    first, second = world.mlflow.versions["ship.bolts"]
    assert world.aliases() == {"champion": second, "previous": first}


@pytest.mark.parametrize("call", ["create_run", "create_model_version", "create_registered_model"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_two_recorders_at_once_come_to_one_result(world: World, call: str, when: str) -> None:
    """The second writes all of it while the first is at a call."""
    key = make_key("k1")
    events = tune(world.store, key=key)
    done: list[str] = []

    def other(name: str) -> None:
        if name == call and not done:
            done.append(name)
            write(world, key, events)

    setattr(world.mlflow, when, other)
    write(world, key, events)
    setattr(world.mlflow, when, lambda _: None)
    write(world, key, events)
    assert done
    versions = world.mlflow.versions["ship.bolts"]
    assert len({version.tags["ship.digest"] for version in versions.values()}) == len(versions) == 1
    assert len(world.mlflow.runs) == 1
    assert world.aliases() == {"champion": min(versions)}


class KilledError(BaseException):
    """The recorder is ended here."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_recorder_that_was_killed_at_any_call_is_made_up_for(world: World, when: str) -> None:
    num_calls = 0
    for number in range(60):
        world.mlflow = FakeMlflow()
        world.objects.stored.clear()
        key = make_key(f"k{number}")
        events = tune(world.store, key=key)
        calls = iter(range(10_000))

        def kill(_: str, number: int = number, calls: Iterator[int] = calls) -> None:
            if next(calls) == number:
                raise KilledError

        setattr(world.mlflow, when, kill)
        with suppress(KilledError):
            write(world, key, events)
            num_calls = number
        setattr(world.mlflow, when, lambda _: None)
        write(world, key, events)
        check_once(world, 1)
        assert world.aliases() == {"champion": 1}
        if num_calls:
            break
    assert num_calls > 12, "no call was ended, or there is no end of calls"


def test_a_run_that_another_recorder_merged_with_its_own_is_written_there(world: World) -> None:
    key = make_key("k1")
    events = tune(world.store, key=key)
    ours = RecordWriter(world.fresh_registry(), PromptStore(world.objects.client()))
    ours.write("bolts", key, events[:2])
    [first] = world.mlflow.runs
    # The smaller id stays.
    world.mlflow.runs = {"0" * 32: world.mlflow.runs.pop(first)}
    world.mlflow.runs["0" * 32].info.run_id = "0" * 32

    def refuse_deleted(self: RunLog, run: TaskRun, status: str, time_s: float) -> None:
        if run.run_id not in world.mlflow.runs:
            raise RegistryError("the run must be in the 'active' state")
        world.mlflow.runs[run.run_id].info.status = status

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "set_status", refuse_deleted)
        ours.write("bolts", key, events)
    assert [run.info.status for run in world.mlflow.runs.values()] == ["FINISHED"]
    assert world.aliases() == {"champion": 1}


def test_a_version_below_its_tasks_floors_is_recorded_and_does_not_serve(world: World) -> None:
    key = make_key("k1")
    events = [
        replace(event, data={**event.data, "floors": {"accuracy": 0.95}})
        if event.kind == "published"
        else event
        for event in tune(world.store, key=key, accuracy=0.90)
    ]
    write(world, key, events)
    assert world.aliases() == {"challenger": 1}
    version = world.registry.version("bolts", 1)
    assert "accuracy 0.9000, expected at least 0.9500" in version.gate_reason
    assert version.tags["ship.gate_refused"] == "true", "only force promotes it"
    assert version.advice is not None
    assert version.advice.gate == "floors"


def test_a_record_that_waited_is_not_judged_as_if_it_were_new(world: World) -> None:
    old, new = make_key("data of 1 November"), make_key("data of 20 November")
    old_events = tune(world.store, key=old, accuracy=0.90, data="november-01")
    write(world, new, tune(world.store, key=new, accuracy=0.93, accuracy_low=0.88, data="november-20"))
    write(world, old, old_events)
    assert world.aliases() == {"champion": 1, "challenger": 2}
    waiting = world.mlflow.versions["ship.bolts"][2]
    assert waiting.tags["ship.gate"] == "challenger"
    assert world.registry.version("bolts", 2).advice == Advice(kind="withheld", gate="older")
    assert waiting.tags["ship.gate_reason"].startswith("It was published before today's champion, version 1")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def recorder(world: World, folder: Path, clock: Clock, mlflow: FakeMlflow | None = None) -> Recorder:
    return Recorder(
        make_registry(mlflow or world.mlflow),
        PromptStore(world.objects.client()),
        folder,
        monotonic=clock,
        sleep=clock.sleep,
    )


def test_one_recorder_writes_at_a_time_and_each_gets_its_turn(world: World, tmp_path: Path) -> None:
    clock = Clock()
    other = StoreLease(world.objects.client(), LEASE, clock)
    other.acquire()
    ours = recorder(world, tmp_path, clock)
    ours.handle(tune(world.store))
    assert not world.mlflow.runs, "it is the turn of another one"
    other.release()
    clock.now_s += 2.0
    ours.handle([])
    assert world.aliases() == {"champion": 1}
    assert not other.acquire()
    clock.now_s += 3.0
    ours.handle([])
    assert other.acquire(), "it has nothing more to write"
    ours.close()


def test_a_recorder_that_died_is_waited_for_a_minute_at_the_most(world: World, tmp_path: Path) -> None:
    clock = Clock()
    StoreLease(world.objects.client(), LEASE, clock).acquire()
    ours = recorder(world, tmp_path, clock)
    ours.handle(tune(world.store))
    assert ours.close().num_records == 0
    assert world.aliases() == {"champion": 1}
    assert clock.now_s <= LEASE_S + 5.0


def test_records_for_a_store_of_another_registry_wait_and_are_not_set_aside(
    world: World, tmp_path: Path
) -> None:
    clock = Clock()
    events = tune(world.store)
    with recorder(world, tmp_path / "a", clock) as ours:
        ours.handle(events)
    foreign = FakeMlflow(identity="f" * 32)
    theirs = recorder(world, tmp_path / "b", clock, foreign)
    theirs.handle(events)
    assert theirs.close(limit_s=5.0).num_records == len(events)
    assert not foreign.runs
    assert not foreign.models
    assert not list((tmp_path / "b").glob("rejected*"))
