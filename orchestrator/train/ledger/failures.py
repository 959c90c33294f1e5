"""What an exception of a task means: is trying again of any use, and can this worker go on?"""

import traceback
from dataclasses import dataclass

from orchestrator.errors import StoreError, StoreFull
from ship.errors import PackError, ShipError

__all__ = ["Failure", "failure_of"]

MAX_DETAIL_CHARS = 8_000


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt at a task ended.

    Attributes:
        cause: One message for people.
        detail: Traceback, where the cause does not say it all; else empty.
        is_retryable: Whether another attempt may do better.
        poisons_worker: Whether the process that it happened in is of no use any more.
        is_shared: Whether it befell a whole pack, so that it may not be this task's fault.
    """

    cause: str
    detail: str = ""
    is_retryable: bool
    poisons_worker: bool = False
    is_shared: bool = False


def failure_of(error: Exception) -> Failure:
    """Judge ``error``.

    Errors in data, images, settings and tuning will come again, and so are final; so is a full store, for
    somebody has to make room, and meanwhile nothing of another attempt would be kept. Memory, stores and
    files may be better next time. What we do not know is tried again too, with its traceback kept.
    """
    # Brings torch, which the ledger's process, that knows failures too, does without.
    from ship.tuning.memory import is_out_of_memory

    if isinstance(error, StoreError):
        return Failure(cause=f"the store: {error}", is_retryable=not isinstance(error, StoreFull))
    if isinstance(error, PackError):
        source = error.__cause__ if isinstance(error.__cause__, Exception) else error
        return Failure(
            cause=str(error),
            detail=_trace(source),
            is_retryable=True,
            poisons_worker=_is_device_error(source),
            is_shared=True,
        )
    if isinstance(error, ShipError):
        return Failure(cause=str(error), is_retryable=False)
    if is_out_of_memory(error):
        return Failure(cause=f"out of memory: {_first_line(error)}", is_retryable=True)
    if isinstance(error, OSError):
        return Failure(cause=f"{type(error).__name__}: {error}", is_retryable=True)
    return Failure(
        cause=f"{type(error).__name__}: {_first_line(error)}",
        detail=_trace(error),
        is_retryable=True,
        poisons_worker=_is_device_error(error),
    )


def _is_device_error(error: Exception) -> bool:
    # After a failed assert or an illegal access, every later call on the device raises the same again.
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-MAX_DETAIL_CHARS:]
