"""Many threads, one pack."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from ship.backbone import Backbone
from ship.errors import PackError
from ship.settings.config import TuneConfig
from ship.tuning.member import TuneResult
from ship.tuning.pack import Pack
from ship.tuning.run import PackTask, tune
from ship.tuning.tuner import Tuner
from tests.unit.ship.factory import make_data
from tests.unit.ship.tuning.packs import assert_same, make_tasks

Quick = Callable[..., TuneConfig]
PATIENCE_S = 60


class Hold:
    """Keeps a tuner busy, so that all callers meanwhile join at once."""

    def __init__(self, tuner: Tuner) -> None:
        self.is_held, self._may_go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=tuner.run, args=(self._wait,))
        self._thread.start()
        assert self.is_held.wait(PATIENCE_S)

    def _wait(self) -> None:
        self.is_held.set()
        assert self._may_go.wait(PATIENCE_S)

    def release(self) -> None:
        self._may_go.set()
        self._thread.join(PATIENCE_S)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool
    for thread in threading.enumerate():
        if thread.name == "tuner":
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "it outlives its work"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the packs that took a step."""
    seen, step = [], Pack.step

    def note(pack: Pack) -> None:
        seen.append(len(pack))
        step(pack)

    monkeypatch.setattr(Pack, "step", note)
    return seen


def ask(
    threads: ThreadPoolExecutor, tuner: Tuner, tasks: list[PackTask]
) -> list[Future[list[TuneResult | Exception]]]:
    """Each task from a thread of its own, all before the first step."""
    hold = Hold(tuner)
    futures = []
    for number, task in enumerate(tasks, 1):
        futures.append(threads.submit(tuner.tune, [task]))
        while len(tuner._waiting) < number:
            threading.Event().wait(0.001)
    hold.release()
    return futures


def test_tasks_of_several_threads_share_steps_and_come_out_as_alone(
    backbone: Backbone, quick: Quick, threads: ThreadPoolExecutor, sizes: list[int]
) -> None:
    tasks = make_tasks(quick)
    found = [future.result(PATIENCE_S) for future in ask(threads, Tuner(backbone), tasks)]
    assert sizes[0] == len(tasks)
    for [outcome], task in zip(found, tasks, strict=True):
        assert_same(outcome, tune(backbone, task.data, task.config))


def test_no_more_are_fused_than_allowed_and_the_rest_follows(
    backbone: Backbone, quick: Quick, threads: ThreadPoolExecutor, sizes: list[int]
) -> None:
    tasks = [PackTask(data=make_data(seed=seed), config=quick()) for seed in range(3)]
    found = [future.result(PATIENCE_S) for future in ask(threads, Tuner(backbone, max_fused=2), tasks)]
    assert all(isinstance(outcome, TuneResult) for [outcome] in found)
    assert set(sizes) == {1, 2}


def test_a_caller_is_told_when_all_its_tasks_have_joined(backbone: Backbone, quick: Quick) -> None:
    told: list[str] = []
    tasks = [
        PackTask(data=make_data(seed=seed), config=quick(epochs=2), on_epoch=lambda _: told.append("epoch"))
        for seed in range(2)
    ]
    outcomes = Tuner(backbone).tune(tasks, on_joined=lambda: told.append("joined"))
    assert [isinstance(outcome, TuneResult) for outcome in outcomes] == [True, True]
    assert told == ["joined", *["epoch"] * 4]
    assert Tuner(backbone).tune([]) == []


def test_what_happens_to_one_happens_to_it_alone(
    backbone: Backbone, quick: Quick, threads: ThreadPoolExecutor
) -> None:
    def leave(_: object) -> None:
        raise KeyError("the lease is lost")

    sound = PackTask(data=make_data(seed=1), config=quick())
    leaves = PackTask(data=make_data(seed=2), config=quick(), on_epoch=leave)
    too_many = PackTask(data=make_data(seed=3), config=quick(num_attribute=1000))
    [first], [second], [third] = [
        future.result(PATIENCE_S) for future in ask(threads, Tuner(backbone), [sound, leaves, too_many])
    ]
    assert_same(first, tune(backbone, sound.data, sound.config))
    assert isinstance(second, KeyError)
    assert "num_attribute" in str(third)


def test_a_failed_step_is_an_error_of_the_pack_unless_a_task_is_alone(
    backbone: Backbone, quick: Quick, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = Tuner(backbone)
    tasks = [PackTask(data=make_data(seed=seed), config=quick()) for seed in range(2)]

    def fail(pack: Pack) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nand so on")

    with monkeypatch.context() as patched:
        patched.setattr(Pack, "step", fail)
        errors = [future.result(PATIENCE_S)[0] for future in ask(threads, tuner, tasks)]
        [alone] = tuner.tune(tasks[:1])
    assert [type(error) for error in errors] == [PackError, PackError]
    assert str(errors[0]) == (
        "a step of 2 tasks failed: RuntimeError: CUDA error: unspecified launch failure"
    )
    assert isinstance(errors[0].__cause__, RuntimeError)
    assert type(alone) is RuntimeError
    [again] = tuner.tune(tasks[:1])
    assert isinstance(again, TuneResult), "it goes on with what comes next"


class LostBackbone(Backbone):
    """A backbone whose device is gone."""

    @property
    def device(self) -> torch.device:
        raise OSError("no such device")


def test_a_pack_that_cannot_be_made_fails_its_callers(backbone: Backbone, quick: Quick) -> None:
    lost = LostBackbone(backbone.vit, backbone.info)
    with pytest.raises(OSError, match="no such device"):
        Tuner(lost).tune([PackTask(data=make_data(), config=quick())])


def test_jobs_are_done_between_steps_in_the_tuners_thread(
    backbone: Backbone, quick: Quick, threads: ThreadPoolExecutor
) -> None:
    tuner, is_stepping = Tuner(backbone), threading.Event()
    names: list[str] = []

    def start_job(report: object) -> None:
        if not is_stepping.is_set():
            is_stepping.set()
            jobs.append(threads.submit(tuner.run, lambda: names.append(threading.current_thread().name)))

    jobs: list[Future[None]] = []
    task = PackTask(data=make_data(), config=quick(epochs=5), on_epoch=start_job)
    [outcome] = tuner.tune([task])
    jobs[0].result(PATIENCE_S)
    assert isinstance(outcome, TuneResult)
    assert names == ["tuner"]
    with pytest.raises(ZeroDivisionError):
        tuner.run(lambda: 1 // 0)
    assert tuner.run(lambda: 5) == 5
