"""Tokens that authenticate and authorize requests: one small object that every ingress follows by its ETag.

A token reads ``ship_<id>_<secret>``. Its id is public: it is listed and logged. Of its secret only a sha256
is kept, so that read access to the store, or to a backup of it, does not give access to an endpoint. Write
access does.

An entry that is not as it has to be concerns its own token: that one lets nobody in and stays in the object
as it is until it is rotated or revoked. All others go on.
"""

import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from orchestrator.errors import StoreError
from orchestrator.names import is_task_name
from orchestrator.store.documents.audit import Trail
from orchestrator.store.documents.audit_document import TrailDocument
from orchestrator.store.documents.document import Digest, Document
from orchestrator.store.documents.writing import to_bytes

__all__ = [
    "MAX_SECRETS",
    "MAX_TIME_S",
    "BrokenToken",
    "ConsoleScope",
    "Pattern",
    "Scope",
    "Secret",
    "Token",
    "Tokens",
    "hash_secret",
    "is_pattern",
    "parse_token",
]

SCHEMA_VERSION = 1
# What may be done in the console: each includes the ones before.
ConsoleScope = Literal["look", "decide", "admin"]
# The last second of the year 9999, the last that a date can be written for.
MAX_TIME_S = 253_402_300_799
# Of one token that is rotated again and again within its grace.
MAX_SECRETS = 8
_TOKEN = re.compile(r"ship_([0-9a-f]{12})_([0-9a-f]{64})")
# What fnmatch understands, and nothing that no task name has.
_PATTERN = re.compile(r"[a-z0-9._*?\[\]!-]{1,100}")
_ADVICE = "restore tokens.json, or make the tokens anew, or update this program"
_MEND = "`ship token rotate` gives it a new secret, `ship token revoke` removes it"
_REMAKE = "`ship token revoke` removes it, `ship token create` makes it anew"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Permissions of a token.

    Attributes:
        predict: Patterns of the tasks that may be queried and listed: ``line-1-*``, ``*``.
        metrics: Whether ``/metrics`` may be read.
        admin: Whether everything may be done.
        console: What may be done in the console with those tasks; None for nothing.
    """

    predict: tuple[str, ...] = ()
    metrics: bool = False
    admin: bool = False
    console: ConsoleScope | None = None

    def may_predict(self, task: str) -> bool:
        """Whether the scope covers a task."""
        return self.admin or any(fnmatchcase(task, pattern) for pattern in self.predict)

    def may_read_metrics(self) -> bool:
        """Whether the scope covers ``/metrics``."""
        return self.admin or self.metrics


@dataclass(frozen=True, kw_only=True)
class Secret:
    """Stored record of one secret of a token.

    Attributes:
        token_id: Public id of the secret.
        sha256: Digest of the secret.
        created_s: Time of creation, seconds since the epoch.
        expires_s: Time of expiry, seconds since the epoch; None for never.
    """

    token_id: str
    sha256: str = field(repr=False)
    created_s: float
    expires_s: float | None = None

    def is_live(self, now_s: float) -> bool:
        """Whether the secret has not expired."""
        return self.expires_s is None or now_s < self.expires_s

    def is_made_of(self, secret: str) -> bool:
        """Whether the hash is of this secret, compared in constant time."""
        return hmac.compare_digest(hash_secret(secret), self.sha256)


@dataclass(frozen=True, kw_only=True)
class Token:
    """A named set of secrets with one scope.

    Attributes:
        scope: Permissions of all its secrets.
        secrets: Secrets, newest first; older ones expire at the end of their grace.
    """

    scope: Scope
    secrets: tuple[Secret, ...]

    def is_live(self, now_s: float) -> bool:
        """Whether any secret has not expired."""
        return any(secret.is_live(now_s) for secret in self.secrets)


@dataclass(frozen=True, kw_only=True)
class BrokenToken:
    """An entry that is not a token's.

    Attributes:
        entry: The entry, which is written back as it was.
        problem: What is wrong with it, without its content.
    """

    entry: JsonValue = field(repr=False)
    problem: str

    def mend(self, name: str) -> Token:
        """The token as far as its rotation needs it: permissions, and a secret with its times and no use.

        Raises:
            StoreError: Its name, its permissions or the time that it was made for cannot be told.
        """
        entry = self.entry if isinstance(self.entry, dict) else {}
        secrets = entry.get("secrets")
        where = f"token {name[:80]!r}"
        scope = _Scope.read(_select(entry, _Scope), where, _REMAKE)
        lifetime = _Lifetime.read(
            _select(secrets[0] if isinstance(secrets, list) and secrets else {}, _Lifetime), where, _REMAKE
        )
        if not is_task_name(name):
            raise StoreError(f"{where}: expected a name of another form; {_REMAKE}")
        useless = Secret(token_id="", sha256="", created_s=lifetime.created_s, expires_s=lifetime.expires_s)
        return Token(scope=scope.to_scope(), secrets=(useless,))


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """All tokens.

    Attributes:
        by_name: Tokens by name.
        broken: Entries that are none, by name.
        trail: Their changes in the audit log.
    """

    by_name: Mapping[str, Token] = field(default_factory=dict)
    broken: Mapping[str, BrokenToken] = field(default_factory=dict)
    trail: Trail = field(default_factory=Trail)

    def find(self, token_id: str) -> tuple[str, Token, Secret] | None:
        """Name and token that an id belongs to, with the secret that is meant."""
        return self._by_id.get(token_id)

    def get(self, name: str) -> Token | BrokenToken | None:
        """The token of that name, broken or not."""
        return self.by_name.get(name) or self.broken.get(name)

    def has_live(self, now_s: float) -> bool:
        """Whether a live token may query any task."""
        return any(
            token.is_live(now_s) and (token.scope.admin or token.scope.predict)
            for token in self.by_name.values()
        )

    @cached_property
    def _by_id(self) -> dict[str, tuple[str, Token, Secret]]:
        return {
            secret.token_id: (name, token, secret)
            for name, token in self.by_name.items()
            for secret in token.secrets
        }

    def to_json(self) -> bytes:
        """The object's content."""
        tokens: dict[str, JsonValue] = {name: broken.entry for name, broken in self.broken.items()}
        tokens |= {name: _write_token(token) for name, token in self.by_name.items()}
        values: dict[str, Any] = {"schema": SCHEMA_VERSION, "tokens": tokens}
        if trail := self.trail.to_dict():
            values["trail"] = trail
        return to_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object; an entry that is not as expected is a broken token.

        Raises:
            StoreError: It is no object of tokens; lists all problems.
        """
        found = _Document.read(content, "tokens", _ADVICE)
        by_name: dict[str, Token] = {}
        problems: dict[str, str] = {}
        for name, entry in found.tokens.items():
            try:
                by_name[name] = _read_token(name, entry)
            except StoreError as error:
                problems[name] = str(error)
        problems |= _find_shared(by_name)
        broken = {
            name: BrokenToken(entry=found.tokens[name], problem=said) for name, said in problems.items()
        }
        good = {name: token for name, token in by_name.items() if name not in broken}
        return cls(by_name=good, broken=broken, trail=found.trail.to_trail())


def parse_token(text: str) -> tuple[str, str] | None:
    """Id and secret of a token's text; None if it is none."""
    found = _TOKEN.fullmatch(text)
    return None if found is None else (found[1], found[2])


def hash_secret(secret: str) -> str:
    """The stored digest of a secret.

    A secret is 256 random bits, not a password: guessing is hopeless, so neither salt nor a slow hash would
    add anything, and this one runs for every request.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def is_pattern(value: object) -> bool:
    """Whether ``value`` is a pattern of task names, such as ``line-1-*``."""
    return isinstance(value, str) and _PATTERN.fullmatch(value) is not None


def _write_token(token: Token) -> dict[str, Any]:
    return {
        "predict": list(token.scope.predict),
        "metrics": token.scope.metrics,
        "admin": token.scope.admin,
        # An earlier version takes a token with this field for broken, and all others as they are.
        **({} if token.scope.console is None else {"console": token.scope.console}),
        "secrets": [
            {
                "id": secret.token_id,
                "sha256": secret.sha256,
                "created_s": secret.created_s,
                "expires_s": secret.expires_s,
            }
            for secret in token.secrets
        ],
    }


Pattern = Annotated[str, StringConstraints(pattern=f"^{_PATTERN.pattern}$")]
_Time = Annotated[float, Field(ge=0, le=MAX_TIME_S)]


class _Secret(Document):
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    sha256: Digest
    created_s: _Time
    expires_s: _Time | None


class _Scope(Document):
    predict: list[Pattern]
    metrics: bool
    admin: bool
    console: ConsoleScope | None = None

    @model_validator(mode="after")
    def _check_scope(self) -> Self:
        if not (self.predict or self.metrics or self.admin):
            raise ValueError("expected predict, metrics or admin to be granted")
        return self

    def to_scope(self) -> Scope:
        return Scope(
            predict=tuple(self.predict), metrics=self.metrics, admin=self.admin, console=self.console
        )


class _Lifetime(Document):
    created_s: _Time
    expires_s: _Time | None


class _Token(_Scope):
    secrets: list[_Secret] = Field(min_length=1, max_length=MAX_SECRETS)

    def to_token(self) -> Token:
        secrets = tuple(
            Secret(
                token_id=secret.id,
                sha256=secret.sha256,
                created_s=secret.created_s,
                expires_s=secret.expires_s,
            )
            for secret in self.secrets
        )
        return Token(scope=self.to_scope(), secrets=secrets)


class _Document(Document):
    schema_: int = Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    tokens: dict[str, JsonValue]
    trail: TrailDocument = TrailDocument()


def _read_token(name: str, entry: JsonValue) -> Token:
    where = f"token {name[:80]!r}"
    if not is_task_name(name):
        raise StoreError(f"{where}: expected a name of another form; {_MEND}")
    return _Token.read(json.dumps(entry).encode(), where, _MEND).to_token()


def _select(entry: JsonValue, part: type[Document]) -> bytes:
    """Those fields of an entry that a part of it has, as JSON."""
    found = entry if isinstance(entry, dict) else {}
    return json.dumps({name: found[name] for name in part.model_fields if name in found}).encode()


def _find_shared(by_name: Mapping[str, Token]) -> dict[str, str]:
    """Tokens with an id that another secret has too: it could not be told which is meant."""
    ids = Counter(secret.token_id for token in by_name.values() for secret in token.secrets)
    return {
        name: f"token {name!r}: expected ids of its own, found {secret.token_id} twice; {_MEND}"
        for name, token in by_name.items()
        for secret in token.secrets
        if ids[secret.token_id] > 1
    }
