"""Follower of the tokens: reads one small object every two seconds, so that a change needs no restart."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.durations import describe_seconds
from orchestrator.errors import StoreError
from orchestrator.serve.kept_tokens import KeptTokens
from orchestrator.serve.watch import Watch
from orchestrator.store.documents.tokens import Tokens

__all__ = ["TokenFollower", "TokenSource"]

POLL_S = 2.0
# Between two records on disk that the tokens are still current; a tenth of the grace, if that is less.
_KEEP_EVERY_S = 30.0
_log = logging.getLogger(__name__)


class TokenSource(Protocol):
    """Store of the tokens."""

    def read_tokens(self) -> tuple[Tokens, str] | None:
        """Tokens and their etag; None before the first token is created."""
        ...


class TokenFollower(Watch):
    """Thread that follows the tokens.

    Known tokens stay valid for a while if the store is down, or the file is damaged or gone: ``ship token
    revoke`` takes tokens away, a broken disk does not. After it they are too old: one of them may have been
    revoked. Ages are those of the begin of a read that succeeded.

    Args:
        source: Store of the tokens.
        kept: Where the last ones are on disk; None keeps none.
        grace_s: Longest time that tokens stay valid without a read that succeeds.
        poll_s: Seconds between two reads.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        source: TokenSource,
        kept: KeptTokens | None = None,
        *,
        grace_s: float = math.inf,
        poll_s: float = POLL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limit = "" if math.isinf(grace_s) else f" for {describe_seconds(grace_s)} at most"
        meanwhile = f"the tokens known so far go on{limit}"
        super().__init__("tokens", self._look, poll_s=poll_s, meanwhile=meanwhile, clock=clock)
        self._source, self._kept, self._grace_s = source, kept, grace_s
        self._etag: str | None = None
        # The tokens, and when they were read, by the clock.
        self._found: tuple[Tokens, float] | None = None
        self._lock = threading.Lock()
        self._kept_at_s = -math.inf
        self._known = threading.Event()

    @property
    def tokens(self) -> Tokens | None:
        """Last tokens that were read; None before the first read."""
        found = self._found
        return None if found is None else found[0]

    @property
    def look_age_s(self) -> float:
        """Seconds since the tokens were last read; before the first time, since the follower was made."""
        found = self._found
        return super().look_age_s if found is None else self._clock() - found[1]

    @property
    def is_stale(self) -> bool:
        """Whether the tokens are too old to admit a request."""
        return self._found is not None and self.look_age_s > self._grace_s

    @property
    def num_broken(self) -> int:
        """Entries of the tokens that are no token's and let nobody in."""
        return 0 if self.tokens is None else len(self.tokens.broken)

    def wait_known(self, timeout_s: float) -> bool:
        """Wait for the first tokens; False after ``timeout_s``."""
        return self._known.wait(timeout_s)

    def take_over_kept(self) -> None:
        """Take the tokens that this machine has kept, unless there are others."""
        kept = None if self._kept is None or self._known.is_set() else self._kept.read()
        with self._lock:
            if kept is not None and self._found is None:
                tokens, age_s = kept
                self._found = tokens, self._clock() - age_s
                self._known.set()
                _log.warning("the store's tokens of %.0f s ago, which this machine has kept, are used", age_s)

    def _look(self) -> str | None:
        began_s = self._clock()
        try:
            found = self._source.read_tokens()
        except StoreError as error:
            self.take_over_kept()
            return self._worded(f"the tokens cannot be read: {error}")
        if found is None:
            return self._worded("there are no tokens in the store")
        tokens, etag = found
        with self._lock:
            self._found = tokens, began_s
        self._known.set()
        is_new, self._etag = etag != self._etag, etag
        if is_new:
            _log.info("%d tokens are known", len(tokens.by_name))
            for broken in tokens.broken.values():
                _log.warning("a token is broken and lets nobody in: %s", broken.problem)
        self._keep(tokens, began_s, is_new=is_new)
        return None

    def _worded(self, problem: str) -> str:
        return f"all requests are refused, as the tokens are too old: {problem}" if self.is_stale else problem

    def _keep(self, tokens: Tokens, read_s: float, *, is_new: bool) -> None:
        now_s = self._clock()
        if self._kept is None or not (
            is_new or now_s - self._kept_at_s >= min(_KEEP_EVERY_S, self._grace_s / 10)
        ):
            return
        self._kept_at_s = now_s
        self._kept.keep(tokens, now_s - read_s)
