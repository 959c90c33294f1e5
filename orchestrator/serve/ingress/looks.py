"""Ages of the last looks that succeeded, at the tokens and at the registry, for probes and metrics.

The tokens are followed in this process. The registry is polled by another one, which is asked now and then:
while it does not answer, the age that it gave last grows.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

__all__ = ["Follower", "Looks"]

_ASK_EVERY_S = 5.0
_TIMEOUT_S = 1.0
_log = logging.getLogger(__name__)


class Follower(Protocol):
    """Thread that looks at something again and again."""

    @property
    def look_age_s(self) -> float:
        """Seconds since a look last succeeded."""
        ...

    @property
    def num_broken(self) -> int:
        """Entries of what it looks at that cannot be read."""
        ...


class Looks:
    """Ages of the last looks.

    Args:
        followers: Followers of this process, by what they look at.
        ask_poller: Asks the poller for the age of its last look at the registry, and for the number of tasks
            of which something is broken there; None if there is none.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        followers: Mapping[str, Follower] | None = None,
        ask_poller: Callable[[], Awaitable[tuple[float, int]]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._followers = followers or {}
        self._ask_poller = ask_poller
        self._clock = clock
        self._ask_at_s = clock()
        # When the registry was looked at, by this clock; the start of this process until the poller answers.
        self._registry_s = clock()
        self._num_broken = 0

    @property
    def num_broken(self) -> dict[str, int]:
        """Tasks of which something is broken in the registry, and tokens that cannot be read."""
        found = {name: follower.num_broken for name, follower in self._followers.items()}
        return found if self._ask_poller is None else {**found, "registry": self._num_broken}

    async def ages_s(self) -> dict[str, float]:
        """Seconds since the last look that succeeded, by what was looked at."""
        ages_s = {name: follower.look_age_s for name, follower in self._followers.items()}
        if self._ask_poller is not None:
            await self._refresh(self._ask_poller)
            ages_s["registry"] = self._clock() - self._registry_s
        return ages_s

    async def _refresh(self, ask: Callable[[], Awaitable[tuple[float, int]]]) -> None:
        now_s = self._clock()
        if now_s < self._ask_at_s:
            return
        # Probes come without a token and at any rate: however many there are, the poller is asked by one.
        self._ask_at_s = now_s + _ASK_EVERY_S
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                age_s, self._num_broken = await ask()
                self._registry_s = now_s - age_s
        # A boundary: a poller that is away is no reason not to answer, and its age tells.
        except Exception as error:
            _log.debug("the poller does not answer: %s: %s", type(error).__name__, error)
