"""What can be refused before an endpoint is started: missing tokens, and files that are not there."""

import logging
import time

from orchestrator.errors import ServeError
from orchestrator.serve.launch.address import is_loopback
from orchestrator.store.prompt_store import PromptStore
from ship.backbone_spec import files_of

__all__ = ["check_access", "check_backbone"]

_log = logging.getLogger(__name__)


def check_access(store: PromptStore, host: str, *, auth: bool) -> None:
    """Refuse to start an endpoint without a valid token, and warn of one without access control.

    Raises:
        ServeError: A token is needed, and there is none.
        StoreError: The tokens cannot be read.
    """
    if not auth:
        if not is_loopback(host):
            _log.warning(
                "no access control: every client that reaches %s may ask every task", host or "this machine"
            )
        return
    found = store.read_tokens()
    if found is None or not found[0].has_live(time.time()):
        raise ServeError(
            f"no client could use this endpoint: {store.url} has no valid token; make one with "
            "`ship token create NAME --predict '*'`, or accept every request with --no-auth"
        )


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
