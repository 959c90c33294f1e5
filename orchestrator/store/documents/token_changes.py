"""Creation, rotation and revocation of tokens.

Each change makes new ``Tokens`` of the old ones, and is written by compare-and-swap.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from orchestrator.errors import ManifestError, ObjectConflict, StoreError
from orchestrator.names import is_task_name
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author, Trail
from orchestrator.store.documents.tokens import (
    MAX_SECRETS,
    MAX_TIME_S,
    BrokenToken,
    Scope,
    Secret,
    Token,
    Tokens,
    hash_secret,
    is_pattern,
)

__all__ = [
    "NewToken",
    "TokenLog",
    "TokenStore",
    "change_tokens",
    "create_token",
    "revoke_token",
    "rotate_token",
]

_NUM_TRIES = 20
_Result = TypeVar("_Result")


class TokenStore(Protocol):
    """Storage of tokens with compare-and-swap."""

    def read_tokens(self) -> tuple[Tokens, str] | None:
        """The tokens and their etag; None before the first one is made."""
        ...

    def write_tokens(self, tokens: Tokens, if_match: str | None) -> str:
        """Write the tokens in place of those with that etag."""
        ...


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A token that was just made; the only time that its text is known.

    Attributes:
        text: Full text of the token, for its client.
        name: Name of the token.
        token: The stored record.
    """

    text: str = field(repr=False)
    name: str
    token: Token


def change_tokens(
    store: TokenStore,
    change: Callable[[Tokens], tuple[Tokens, _Result]],
    log: "TokenLog | None" = None,
) -> _Result:
    """Read, change and write the tokens; repeat all of it if another writer was faster.

    Args:
        store: Store of the tokens.
        change: The changed tokens, and the result.
        log: Where the change is logged; None for nowhere.

    Raises:
        StoreError: The store failed, or others were faster each time.
    """
    for _ in range(_NUM_TRIES):
        found = store.read_tokens()
        tokens, etag = (Tokens(), None) if found is None else found
        changed, result = change(tokens)
        changed = replace(changed, trail=tokens.trail if log is None else log.trail(tokens, changed))
        try:
            written = store.write_tokens(changed, etag)
        except ObjectConflict:
            # Ours may be there all the same, if its reply was lost, or another writer has built on it since:
            # then it must not be made a second time.
            standing = store.read_tokens()
            if standing is None or not _has_change(standing[0], tokens, changed):
                continue
            changed, written = standing
        if log is not None:
            log.log.follow(changed, written, store.write_tokens)
        return result
    raise ObjectConflict(f"tokens: others changed them {_NUM_TRIES} times over meanwhile; try again")


@dataclass(frozen=True, kw_only=True)
class TokenLog:
    """Where a change of tokens is logged.

    Attributes:
        log: The audit log.
        action: The change: ``token-create``, ``token-rotate`` or ``token-revoke``.
        author: Its author.
    """

    log: AuditLog
    action: str
    author: Author

    def trail(self, before: Tokens, after: Tokens) -> Trail:
        """The trail of the tokens with the change from one state to another; it holds no secret."""
        touched = _find_touched(before, after)
        was, becomes = (
            {name: _told(found) for name in touched if (found := tokens.get(name)) is not None}
            for tokens in (before, after)
        )
        record = self.log.record(self.action, None, was, becomes, self.author)
        return before.trail.add(record)


def _told(token: Token | BrokenToken) -> dict[str, Any]:
    """A token for the log: its permissions, and the public ids and expiries of its secrets."""
    if isinstance(token, BrokenToken):
        return {"problem": token.problem}
    return {
        "predict": list(token.scope.predict),
        "metrics": token.scope.metrics,
        "admin": token.scope.admin,
        **({"console": token.scope.console} if token.scope.console else {}),
        "secrets": {secret.token_id: secret.expires_s for secret in token.secrets},
    }


def _has_change(standing: Tokens, before: Tokens, after: Tokens) -> bool:
    """Whether every token that a change touched is as the change left it; no two secrets are alike."""
    return all(standing.get(name) == after.get(name) for name in _find_touched(before, after))


def _find_touched(before: Tokens, after: Tokens) -> list[str]:
    names = {*before.by_name, *before.broken, *after.by_name, *after.broken}
    return sorted(name for name in names if before.get(name) != after.get(name))


def create_token(
    tokens: Tokens, name: str, scope: Scope, *, now_s: float, lifetime_s: float | None = None
) -> tuple[Tokens, NewToken]:
    """Make a token.

    Args:
        tokens: Tokens so far.
        name: Name of the new token; unused, or that of an expired token.
        scope: Permissions.
        now_s: Current time, seconds since the epoch.
        lifetime_s: Seconds until expiry; None for never.

    Raises:
        ManifestError: The name or the scope is invalid, or the expiry is after the year 9999.
        StoreError: There is a token of that name.
    """
    if not is_task_name(name):
        raise ManifestError(
            f"token name {name[:80]!r}: expected 1 to 63 characters of a-z, 0-9, '.', '_' and '-', starting "
            "with a letter or digit"
        )
    if bad := [pattern for pattern in scope.predict if not is_pattern(pattern)]:
        raise ManifestError(
            f"--predict {bad[0][:80]!r}: expected a task name or a pattern of them, such as 'line-1-*' or '*'"
        )
    if scope.console is not None and not (scope.predict or scope.admin):
        raise ManifestError(
            f"token {name!r}: --console {scope.console} shows the tasks that it may ask, and it may ask "
            "none; add --predict '*', or a pattern of task names"
        )
    if not (scope.predict or scope.metrics or scope.admin):
        raise ManifestError(
            f"token {name!r} would be good for nothing; say for what: --predict '*' (or a pattern of task "
            "names), --metrics, --admin"
        )
    standing = tokens.by_name.get(name)
    if standing is not None and standing.is_live(now_s):
        raise StoreError(
            f"there is a token {name!r} already; `ship token rotate {name}` gives it a new secret, "
            f"`ship token revoke {name}` makes room for another one"
        )
    if name in tokens.broken:
        raise StoreError(tokens.broken[name].problem)
    return _put(tokens, name, scope, (), now_s=now_s, lifetime_s=lifetime_s)


def rotate_token(tokens: Tokens, name: str, *, now_s: float, grace_s: float = 0.0) -> tuple[Tokens, NewToken]:
    """Give a token a new secret, which lives as long as the last one was made for; a broken one is mended.

    Args:
        tokens: Tokens so far.
        name: Name of the token.
        now_s: Current time, seconds since the epoch.
        grace_s: Seconds for which older secrets stay valid, if they do not expire earlier.

    Raises:
        ManifestError: The expiry is after the year 9999.
        StoreError: There is no such token, or it is broken and cannot be mended.
    """
    token = _get(tokens, name)
    if isinstance(token, BrokenToken):
        token = token.mend(name)
        grace_s = -math.inf
    newest = token.secrets[0]
    lifetime_s = None if newest.expires_s is None else newest.expires_s - newest.created_s
    until_s = min(now_s + grace_s, MAX_TIME_S)
    older = tuple(
        replace(secret, expires_s=until_s if secret.expires_s is None else min(secret.expires_s, until_s))
        for secret in token.secrets
    )
    live = tuple(secret for secret in older if secret.is_live(now_s))
    return _put(tokens, name, token.scope, live[: MAX_SECRETS - 1], now_s=now_s, lifetime_s=lifetime_s)


def revoke_token(tokens: Tokens, name: str) -> tuple[Tokens, Token | BrokenToken]:
    """Revoke a token with all its secrets, broken or not; also returns the revoked token.

    Raises:
        StoreError: There is no such token.
    """
    token = _get(tokens, name)
    return _without(tokens, name), token


def _put(
    tokens: Tokens,
    name: str,
    scope: Scope,
    older: tuple[Secret, ...],
    *,
    now_s: float,
    lifetime_s: float | None,
) -> tuple[Tokens, NewToken]:
    if lifetime_s is not None and now_s + lifetime_s > MAX_TIME_S:
        raise ManifestError("--expires: expected some date before the year 10000; leave it out for never")
    token_id, secret = _draw_id(tokens), secrets.token_hex(32)
    newest = Secret(
        token_id=token_id,
        sha256=hash_secret(secret),
        created_s=now_s,
        expires_s=None if lifetime_s is None else now_s + lifetime_s,
    )
    token = Token(scope=scope, secrets=(newest, *older))
    made = NewToken(text=f"ship_{token_id}_{secret}", name=name, token=token)
    left = _without(tokens, name)
    return replace(left, by_name={**left.by_name, name: token}), made


def _without(tokens: Tokens, name: str) -> Tokens:
    by_name = {other: token for other, token in tokens.by_name.items() if other != name}
    broken = {other: token for other, token in tokens.broken.items() if other != name}
    return replace(tokens, by_name=by_name, broken=broken)


def _draw_id(tokens: Tokens) -> str:
    while tokens.find(token_id := secrets.token_hex(6)) is not None:
        continue
    return token_id


def _get(tokens: Tokens, name: str) -> Token | BrokenToken:
    token = tokens.get(name)
    if token is None:
        raise StoreError(f"there is no token {name[:80]!r}; `ship token ls` lists all of them")
    return token
