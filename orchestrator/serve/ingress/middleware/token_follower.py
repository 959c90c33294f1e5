"""Follows the tokens: one small object, looked at each two seconds, so that a change needs no restart."""

import logging
import threading
from typing import Protocol

from orchestrator.errors import StoreError
from orchestrator.serve.watch import Watch
from orchestrator.store.tokens import Tokens

__all__ = ["TokenFollower", "TokenSource"]

POLL_S = 2.0
_log = logging.getLogger(__name__)


class TokenSource(Protocol):
    """Where the tokens are."""

    def read_tokens(self) -> tuple[Tokens, str] | None:
        """The tokens and their etag; None before the first one is made."""
        ...


class TokenFollower(Watch):
    """Knows the tokens, from a thread of its own.

    Those that are known go on while the store is down, or the file is damaged or gone: whoever wants to take
    tokens away does it with ``ship token revoke``, not by a broken disk.

    Args:
        source: Where the tokens are.
        poll_s: Between two looks.
    """

    def __init__(self, source: TokenSource, *, poll_s: float = POLL_S) -> None:
        super().__init__("tokens", self._look, poll_s=poll_s, meanwhile="the tokens known so far go on")
        self._source = source
        self._etag: str | None = None
        self._tokens: Tokens | None = None
        self._known = threading.Event()

    @property
    def tokens(self) -> Tokens | None:
        """The last that were read; None if none were yet."""
        return self._tokens

    def wait_known(self, timeout_s: float) -> bool:
        """Wait until tokens were read once; False if that took too long."""
        return self._known.wait(timeout_s)

    def _look(self) -> str | None:
        try:
            found = self._source.read_tokens()
        except StoreError as error:
            return f"the tokens cannot be read: {error}"
        if found is None:
            return "there are no tokens in the store"
        tokens, etag = found
        if etag != self._etag:
            self._tokens, self._etag = tokens, etag
            _log.info("%d tokens are known", len(tokens.by_name))
        self._known.set()
        return None
