"""What can be refused before an endpoint is started: missing tokens, and files that are not there."""

import logging
import math
import time

from orchestrator.durations import describe_seconds
from orchestrator.errors import ServeError, StoreError
from orchestrator.serve.kept_tokens import KeptTokens
from orchestrator.serve.launch.address import is_loopback
from orchestrator.store.documents.tokens import Tokens
from orchestrator.store.prompt_store import PromptStore
from ship.backbone_spec import files_of

__all__ = ["check_access", "check_backbone"]

_log = logging.getLogger(__name__)


def check_access(
    store: PromptStore, host: str, *, auth: bool, kept: KeptTokens | None = None, grace_s: float = math.inf
) -> None:
    """Refuse to start an endpoint without a valid token, and warn of one without access control.

    Args:
        store: Store of the tokens.
        host: Address that the endpoint will listen on.
        auth: Whether a request needs a token.
        kept: The last tokens on this machine, which count while the store cannot be read.
        grace_s: Age from which they do not.

    Raises:
        ServeError: A token is needed, and there is none.
        StoreError: The tokens cannot be read, and this machine has kept none, or none that are new enough.
    """
    if not auth:
        if not is_loopback(host):
            _log.warning(
                "no access control: every client that reaches %s may ask every task", host or "this machine"
            )
        return
    tokens = _read_tokens(store, kept, grace_s)
    if tokens is None or not tokens.has_live(time.time()):
        raise ServeError(
            f"no client could use this endpoint: {store.url} has no valid token; make one with "
            "`ship token create NAME --predict '*'`, or accept every request with --no-auth"
        )


def _read_tokens(store: PromptStore, kept: KeptTokens | None, grace_s: float) -> Tokens | None:
    try:
        found = store.read_tokens()
    except StoreError as error:
        last = None if kept is None else kept.read()
        if last is None or last[1] > grace_s:
            raise
        _log.warning(
            "%s; its tokens of %s ago, which this machine has kept, are used meanwhile, up to an age of %s",
            error,
            describe_seconds(last[1]),
            describe_seconds(grace_s),
        )
        return last[0]
    return None if found is None else found[0]


def check_backbone(spec: str, *, is_local: bool) -> None:
    """Refuse files that are not there, before anything is started; what else is wrong with it an engine says.

    Args:
        spec: See ``ship.backbone_spec``.
        is_local: Whether engines run on this machine alone. Those of a cluster have files of their own.

    Raises:
        ServeError: A file is missing.
    """
    missing = [str(path) for path in files_of(spec) if is_local and not path.is_file()]
    if missing:
        raise ServeError(
            f"backbone {spec!r}: {missing[0]} is not there; expected a timm model name, or a folder with "
            "timm's config.json and model.safetensors"
        )
