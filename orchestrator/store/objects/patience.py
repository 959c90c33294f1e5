"""Retries with exponential backoff and jitter within a total time.

Knows no backend: the caller says which errors are transient.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_before_delay
from tenacity.wait import wait_random_exponential

from ship.redaction import redact_text

__all__ = ["TRANSIENT_STATUSES", "GaveUp", "Patience"]

# Of HTTP: too many requests, or a server that may answer the same request later.
TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})

_logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class GaveUp(Exception):  # noqa: N818 - reads as a fact
    """A transient error that lasted until the retries ended.

    Attributes:
        error: The last one.
        num_tries: The first one included.
        seconds: From the first try to the end of the last.
    """

    def __init__(self, error: BaseException, num_tries: int, seconds: float) -> None:
        super().__init__(error, num_tries, seconds)
        self.error, self.num_tries, self.seconds = error, num_tries, seconds

    def __str__(self) -> str:
        """The last error, how often it was tried and for how long."""
        tries = "once" if self.num_tries == 1 else f"{self.num_tries} times"
        return f"{self.error} (tried {tries} in {self.seconds:.1f} s)"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """A retry policy. Pauses are drawn from zero to a bound that doubles, so that many clients spread out.

    Attributes:
        total_s: No try starts later than this after the first; one that is under way may take longer.
        first_wait_s: Bound of the first pause.
        longest_wait_s: Bound of every pause.
    """

    total_s: float = 60.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 8.0

    def run(self, action: Callable[[], Result], is_transient: Callable[[BaseException], bool]) -> Result:
        """Try an action until it works, or fails for good.

        Args:
            action: Repeatable after a transient error.
            is_transient: Whether an error is transient; others are raised as they are.

        Raises:
            GaveUp: It still failed when the time was over.
        """
        started_s = time.monotonic()
        tries = Retrying(
            retry=retry_if_exception(is_transient),
            stop=stop_before_delay(self.total_s),
            wait=wait_random_exponential(multiplier=self.first_wait_s, max=self.longest_wait_s),
            before_sleep=self._tell,
        )
        try:
            return tries(action)
        except RetryError as error:
            last = error.last_attempt
            cause = last.exception()
            assert cause is not None, "an action that worked is not tried again"
            raise GaveUp(cause, last.attempt_number, time.monotonic() - started_s) from cause

    def _tell(self, state: RetryCallState) -> None:
        """Log the cause of the wait, once."""
        if state.attempt_number == 1 and state.outcome is not None:
            said = redact_text(str(state.outcome.exception()))
            _logger.warning("%s; trying again for up to %.0f s", said, self.total_s)
