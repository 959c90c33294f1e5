"""Classification of a task's exceptions: whether to retry the task, and whether the worker can go on."""

import traceback
from dataclasses import dataclass

from orchestrator.errors import StoreError, StoreFull
from ship.errors import PackError, ShipError
from ship.redaction import redact_text

__all__ = ["Failure", "failure_of"]

MAX_DETAIL_CHARS = 8_000


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt at a task ended. Cause and detail go to MLflow and logs: secrets of URLs are left out.

    Attributes:
        cause: Message for the user.
        detail: Traceback of an unexpected exception, else empty.
        is_retryable: Whether the task is tried again.
        poisons_worker: Whether the worker process has become unusable.
        is_shared: Whether a whole pack failed, so that another task of it may be the cause.
    """

    cause: str
    detail: str = ""
    is_retryable: bool
    poisons_worker: bool = False
    is_shared: bool = False

    def __post_init__(self) -> None:
        """Redact what an exception of any library says."""
        for name in ("cause", "detail"):
            object.__setattr__(self, name, redact_text(getattr(self, name)))


def failure_of(error: Exception) -> Failure:
    """Classify an exception.

    Errors in data, images, settings and tuning are deterministic, and so are final; so is a full store, for
    the user has to make room first. Errors of memory, stores and files may be transient. Unknown errors are
    retried too, and keep their traceback.
    """
    # Imports torch, which the ledger's process, for which this module is imported too, does without.
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
