import pytest

from orchestrator.errors import ObjectMissing, StoreError, StoreFull
from orchestrator.train.ledger.failures import failure_of
from ship.errors import ConfigError, DataError, ImageError, PackError, TuningError


@pytest.mark.parametrize("kind", [ConfigError, DataError, ImageError, TuningError])
def test_what_will_come_again_is_final(kind: type[Exception]) -> None:
    failure = failure_of(kind("x.png: broken"))
    assert (failure.cause, failure.detail, failure.is_retryable) == ("x.png: broken", "", False)


def test_all_problems_are_in_the_cause() -> None:
    failure = failure_of(DataError(["a.png: empty", "b.png: not an image"]))
    assert failure.cause == "2 problems:\n- a.png: empty\n- b.png: not an image"


@pytest.mark.parametrize(
    "error",
    [
        StoreError("no answer"),
        ObjectMissing("snapshots/a"),
        OSError(28, "No space left on device"),
        ConnectionResetError("by peer"),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    failure = failure_of(error)
    assert failure.is_retryable
    assert failure.detail == "", "the cause says it all"
    assert not failure.poisons_worker
    assert "\n" not in failure.cause


def test_a_full_store_is_final_because_nothing_of_another_attempt_would_be_kept() -> None:
    failure = failure_of(StoreFull("quota reached"))
    assert (failure.cause, failure.is_retryable) == ("the store: quota reached", False)


def test_what_befell_a_pack_is_not_this_tasks_fault() -> None:
    failure = failure_of(PackError.of(RuntimeError("CUDA error: launch failure\nmore"), 3))
    assert failure.cause == "a step of 3 tasks failed: RuntimeError: CUDA error: launch failure"
    assert (failure.is_shared, failure.is_retryable, failure.poisons_worker) == (True, True, True)
    assert "RuntimeError" in failure.detail
    harmless = failure_of(PackError.of(ValueError("odd"), 2))
    assert (harmless.is_shared, harmless.poisons_worker) == (True, False)
    assert not failure_of(ValueError("odd")).is_shared


def test_the_unknown_is_tried_again_and_keeps_its_traceback() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        failure = failure_of(error)
    assert failure.is_retryable
    assert failure.cause == "KeyError: 'missing'"
    assert "test_failures.py" in failure.detail


def test_a_broken_device_poisons_the_worker() -> None:
    failure = failure_of(RuntimeError("CUDA error: device-side assert triggered"))
    assert failure.poisons_worker
    assert failure.is_retryable


def test_neither_cause_nor_traceback_shows_the_password_of_a_url() -> None:
    try:
        raise KeyError("no answer from https://reader:S3cret@files.plant/a?sig=S3cret")
    except KeyError as error:
        failures = [failure_of(error), failure_of(OSError(str(error))), failure_of(PackError.of(error, 2))]
    for failure in failures:
        assert "https://files.plant/a" in failure.cause
        assert "S3cret" not in failure.cause + failure.detail
