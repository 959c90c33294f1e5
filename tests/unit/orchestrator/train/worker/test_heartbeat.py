"""A lease is renewed by progress: beat by beat, without a clock."""

import threading

import pytest

from orchestrator.errors import ExecutionError
from orchestrator.train.ledger.grants import Phase, StallLimits
from orchestrator.train.worker.heartbeat import Heartbeat
from orchestrator.train.worker.progress import Progress

LIMITS = StallLimits(data_s=30.0, step_s=60.0, store_s=45.0)
PERIOD_S = 15.0


def make(progress: Progress, *, holds: bool = True) -> Heartbeat:
    return Heartbeat(lambda: holds, PERIOD_S, progress, LIMITS)


def count_beats(pulse: Heartbeat) -> int:
    """Beats until the last one, which is not counted."""
    return next(number for number in range(1000) if not pulse.step())


@pytest.mark.parametrize(("phase", "num_beats"), [("data", 2), ("step", 4), ("store", 3)])
def test_a_task_without_progress_is_stuck_at_the_limit_of_its_phase(phase: Phase, num_beats: int) -> None:
    progress = Progress()
    pulse = make(progress)
    progress.enter(phase)
    # The first beat sees that the phase has begun.
    assert count_beats(pulse) == num_beats
    assert pulse.is_lost
    assert pulse.stall.startswith(f"no progress for {LIMITS.of(phase):g} s while ")


@pytest.mark.parametrize("phase", ["data", "step", "store"])
def test_any_progress_keeps_a_lease_however_slow(phase: Phase) -> None:
    progress, passes = Progress(), [0]
    progress.enter(phase, lambda: passes[0])
    pulse = make(progress)
    for number in range(100):
        if phase == "step":
            passes[0] += number % 2
        elif number % 2:
            with progress.doing("a file"):
                pass
        assert pulse.step()
    assert pulse.stall is None
    assert not pulse.is_lost


def test_an_operation_under_way_is_no_progress_and_the_oldest_is_named() -> None:
    progress = Progress()
    progress.enter("data")
    pulse = make(progress)
    with progress.doing("nfs/hung.png"):
        for _ in range(3):
            with progress.doing("nfs/good.png"):
                assert pulse.step()
        with progress.doing("nfs/later.png"):
            count_beats(pulse)
    assert pulse.stall == "no progress for 30 s while reading its data (nfs/hung.png)"


def test_an_operation_that_fails_is_over() -> None:
    progress = Progress()
    with pytest.raises(OSError, match="gone"), progress.doing("a.png"):
        raise OSError("gone")
    assert progress.describe() == "exchanging objects with the store"


def test_a_lost_lease_ends_the_beats_and_is_no_stall() -> None:
    pulse = make(Progress(), holds=False)
    assert not pulse.step()
    assert pulse.is_lost
    assert pulse.stall is None


def test_a_heartbeat_that_cannot_reach_the_ledger_counts_as_lost() -> None:
    def beat() -> bool:
        raise ExecutionError("no answer")

    ended = threading.Event()
    with Heartbeat(beat, 0.01, on_end=ended.set) as pulse:
        assert ended.wait(30)
        assert pulse.is_lost
