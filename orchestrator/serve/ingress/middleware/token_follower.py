"""Follower of the tokens: reads one small object every two seconds, so that a change needs no restart."""

import logging
import threading
from dataclasses import replace
from typing import Protocol

from orchestrator.errors import StoreError
from orchestrator.serve.watch import Watch
from orchestrator.store.documents.tokens import Tokens

__all__ = ["TokenFollower", "TokenSource"]

POLL_S = 2.0
_log = logging.getLogger(__name__)


class TokenSource(Protocol):
    """Store of the tokens."""

    def read_tokens(self) -> tuple[Tokens, str] | None:
        """Tokens and their etag; None before the first token is created."""
        ...


class TokenFollower(Watch):
    """Thread that follows the tokens.

    Known tokens stay valid while the store is down, or the file is damaged or gone: ``ship token revoke``
    takes tokens away, a broken disk does not.

    Args:
        source: Store of the tokens.
        poll_s: Seconds between two reads.
    """

    def __init__(self, source: TokenSource, *, poll_s: float = POLL_S) -> None:
        super().__init__("tokens", self._look, poll_s=poll_s, meanwhile="the tokens known so far go on")
        self._source = source
        self._etag: str | None = None
        self._tokens: Tokens | None = None
        self._known = threading.Event()

    @property
    def tokens(self) -> Tokens | None:
        """Last tokens that were read; None before the first read."""
        return self._tokens

    @property
    def num_broken(self) -> int:
        """Tokens that cannot be read."""
        return 0 if self._tokens is None else len(self._tokens.broken)

    def wait_known(self, timeout_s: float) -> bool:
        """Wait for the first read; False after ``timeout_s``."""
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
            known = {} if self._tokens is None else self._tokens.by_name
            kept = {name: known[name] for name in tokens.broken if name in known}
            self._tokens, self._etag = replace(tokens, by_name={**tokens.by_name, **kept}), etag
            _log.info("%d tokens are known", len(tokens.by_name))
            for name, broken in tokens.broken.items():
                meanwhile = "stays as it was" if name in kept else "is refused"
                _log.warning("token %s %s: %s", ascii(name)[:80], meanwhile, broken.problem)
        self._known.set()
        return None
