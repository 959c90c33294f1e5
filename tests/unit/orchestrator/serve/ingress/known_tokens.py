"""Tokens as the ingress knows them, changed by hand."""

from dataclasses import dataclass, field

from orchestrator.store.documents.token_changes import create_token
from orchestrator.store.documents.tokens import Scope as TokenScope
from orchestrator.store.documents.tokens import Tokens

__all__ = ["Known"]


@dataclass
class Known:
    """Tokens that are known, and the texts of those that were made."""

    tokens: Tokens | None = None
    is_stale: bool = False
    texts: dict[str, str] = field(default_factory=dict)

    def make(self, name: str, scope: TokenScope, lifetime_s: float | None = None, now_s: float = 0.0) -> str:
        self.tokens, made = create_token(
            self.tokens or Tokens(), name, scope, now_s=now_s, lifetime_s=lifetime_s
        )
        self.texts[name] = made.text
        return made.text
