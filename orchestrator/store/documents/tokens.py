"""Tokens that authenticate and authorize requests: one small object that every ingress follows by its ETag.

A token reads ``ship_<id>_<secret>``. Its id is public: it is listed and logged. Of its secret only a sha256
is kept, so that read access to the store, or to a backup of it, does not give access to an endpoint. Write
access does.
"""

import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from orchestrator.errors import StoreError
from orchestrator.store.documents.audit import Trail
from orchestrator.store.documents.audit_document import TrailDocument
from orchestrator.store.documents.document import Digest, Document, TaskName

__all__ = [
    "MAX_SECRETS",
    "MAX_TIME_S",
    "BrokenToken",
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
# The last second of the year 9999, the last that a date can be written for.
MAX_TIME_S = 253_402_300_799
# Of one token that is rotated again and again within its grace.
MAX_SECRETS = 8
_TOKEN = re.compile(r"ship_([0-9a-f]{12})_([0-9a-f]{64})")
# What fnmatch understands, and nothing that no task name has.
_PATTERN = re.compile(r"[a-z0-9._*?\[\]!-]{1,100}")
_ADVICE = "restore tokens.json, or make the token anew, or update this program"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Permissions of a token.

    Attributes:
        predict: Patterns of the tasks that may be queried and listed: ``line-1-*``, ``*``.
        metrics: Whether ``/metrics`` may be read.
        admin: Whether everything may be done.
    """

    predict: tuple[str, ...] = ()
    metrics: bool = False
    admin: bool = False

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
    """A token that cannot be read.

    Attributes:
        problem: What is wrong with it; never its content.
        values: Its JSON values.
    """

    problem: str
    values: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """All tokens.

    Attributes:
        by_name: Tokens by name.
        trail: Their changes in the audit log.
        broken: Tokens that cannot be read, by name: they are refused, and written as they were found.
    """

    by_name: Mapping[str, Token] = field(default_factory=dict)
    trail: Trail = field(default_factory=Trail)
    broken: Mapping[str, BrokenToken] = field(default_factory=dict)

    def find(self, token_id: str) -> tuple[str, Token, Secret] | None:
        """Name and token that an id belongs to, with the secret that is meant."""
        return self._by_id.get(token_id)

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
        tokens = {name: broken.values for name, broken in self.broken.items()}
        tokens |= {name: _write_token(token) for name, token in self.by_name.items()}
        values: dict[str, Any] = {"schema": SCHEMA_VERSION, "tokens": tokens}
        if trail := self.trail.to_dict():
            values["trail"] = trail
        return (json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the object. A token that is not as expected is left out, and named in ``broken``.

        Raises:
            StoreError: It holds no tokens; lists all problems.
        """
        try:
            return cls._read(content)
        except StoreError as error:
            whole = error
        return cls._read_apart(content, whole)

    @classmethod
    def _read_apart(cls, content: bytes, whole: StoreError) -> Self:
        """The same, each token by itself; raises the error of the whole if more than tokens are broken."""
        found = _parts_of(content)
        if found is None:
            raise whole
        frame, tokens = found
        read = cls._read(json.dumps(frame).encode())
        by_name: dict[str, Token] = {}
        broken: dict[str, BrokenToken] = {}
        for name, token in tokens.items():
            try:
                by_name |= cls._read(json.dumps({**frame, "tokens": {name: token}}).encode()).by_name
            except StoreError as error:
                broken[name] = BrokenToken(problem=error.problems[0], values=token)
        ids = Counter(secret.token_id for token in by_name.values() for secret in token.secrets)
        for name, token in list(by_name.items()):
            if shared := [secret.token_id for secret in token.secrets if ids[secret.token_id] > 1]:
                # Whose it is cannot be told, so neither of the tokens is believed.
                problem = f"tokens: {name!r}: it shares the id {shared[0]} with another one; {_ADVICE}"
                broken[name] = BrokenToken(problem=problem, values=tokens[name])
                del by_name[name]
        return replace(read, by_name=by_name, broken=broken)

    @classmethod
    def _read(cls, content: bytes) -> Self:
        found = _Document.read(content, "tokens", _ADVICE)
        by_name = {name: token.to_token() for name, token in found.tokens.items()}
        return cls(by_name=by_name, trail=found.trail.to_trail())


def _parts_of(content: bytes) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The document without its tokens, and these by name; None if it is none."""
    try:
        values = json.loads(content)
        frame = {**values, "tokens": {}}
        _Document.read(json.dumps(frame).encode(), "tokens", _ADVICE)
        return (frame, values["tokens"]) if isinstance(values["tokens"], dict) else None
    except (ValueError, TypeError, KeyError, RecursionError, StoreError):
        return None


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


class _Token(Document):
    predict: list[Pattern]
    metrics: bool
    admin: bool
    secrets: list[_Secret] = Field(min_length=1, max_length=MAX_SECRETS)

    @model_validator(mode="after")
    def _check_scope(self) -> Self:
        if not (self.predict or self.metrics or self.admin):
            raise ValueError("expected predict, metrics or admin to be granted")
        return self

    def to_token(self) -> Token:
        return Token(
            scope=Scope(predict=tuple(self.predict), metrics=self.metrics, admin=self.admin),
            secrets=tuple(
                Secret(
                    token_id=secret.id,
                    sha256=secret.sha256,
                    created_s=secret.created_s,
                    expires_s=secret.expires_s,
                )
                for secret in self.secrets
            ),
        )


class _Document(Document):
    schema_: int = Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    tokens: dict[TaskName, _Token]
    trail: TrailDocument = TrailDocument()

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        ids = Counter(secret.id for token in self.tokens.values() for secret in token.secrets)
        if shared := [token_id for token_id, count in ids.items() if count > 1]:
            raise ValueError(f"expected ids of their own, found secrets that share {', '.join(shared)}")
        return self
