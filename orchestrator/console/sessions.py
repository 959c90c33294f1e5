"""Sessions of people who have signed in, and the limit on tries to sign in. Both end with the process."""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["COOKIE", "LIFETIME_S", "Session", "Sessions", "SignInLimit"]

COOKIE = "ship_console"
LIFETIME_S = 12 * 3600.0
_MAX_SESSIONS = 10_000
_MAX_ADDRESSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Session:
    """A person who has signed in with a token.

    Attributes:
        token_id: Public id of the secret that was given.
        sha256: Digest of that secret: a session ends when the token's secret does.
        csrf: What forms and requests of scripts carry, which no other site knows.
        expires_s: Seconds since the epoch.
    """

    token_id: str
    sha256: str = field(repr=False)
    csrf: str = field(repr=False)
    expires_s: float


class Sessions:
    """Sessions by a random id, of which a digest is kept: the id is in a cookie, and nothing else is.

    Args:
        clock: Current time, seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._by_digest: OrderedDict[str, Session] = OrderedDict()

    def begin(self, token_id: str, sha256: str) -> str:
        """Begin a session; returns its id, the content of the cookie. Beyond a limit the oldest one ends."""
        session = Session(
            token_id=token_id,
            sha256=sha256,
            csrf=secrets.token_urlsafe(32),
            expires_s=self._clock() + LIFETIME_S,
        )
        session_id = secrets.token_urlsafe(32)
        with self._lock:
            self._by_digest[_digest(session_id)] = session
            while len(self._by_digest) > _MAX_SESSIONS:
                self._by_digest.popitem(last=False)
        return session_id

    def find(self, session_id: str) -> Session | None:
        """The session of an id; None if there is none, or it has expired."""
        digest = _digest(session_id)
        with self._lock:
            session = self._by_digest.get(digest)
            if session is not None and self._clock() >= session.expires_s:
                del self._by_digest[digest]
                return None
            return session

    def end(self, session_id: str) -> None:
        """End a session, if there is one."""
        with self._lock:
            self._by_digest.pop(_digest(session_id), None)


class SignInLimit:
    """Limit on failed tries to sign in, by address and in all.

    Args:
        each: Failures of one address within ``window_s``.
        all_: Failures of all addresses within ``window_s``.
        window_s: Seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        each: int = 10,
        all_: int = 200,
        window_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._each, self._window_s, self._clock = each, window_s, clock
        self._all: deque[float] = deque(maxlen=all_)
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        with self._lock:
            failures = self._by_address.get(address)
            return max(self._wait_s(self._all), 0.0 if failures is None else self._wait_s(failures))

    def add_failure(self, address: str) -> None:
        """Count a failed try."""
        with self._lock:
            failures = self._by_address.setdefault(address, deque(maxlen=self._each))
            self._by_address.move_to_end(address)
            while len(self._by_address) > _MAX_ADDRESSES:
                self._by_address.popitem(last=False)
            now_s = self._clock()
            failures.append(now_s)
            self._all.append(now_s)

    def _wait_s(self, failures: deque[float]) -> float:
        """Time until the oldest of as many failures as are allowed is out of the window."""
        if len(failures) < (failures.maxlen or 0):
            return 0.0
        return max(0.0, failures[0] + self._window_s - self._clock())


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode(errors="replace")).hexdigest()
