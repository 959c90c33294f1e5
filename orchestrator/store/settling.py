"""Changes of a store's documents that a command was ended before it logged, for the audit log."""

from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.prompt_store import PromptStore

__all__ = ["log_documents"]


def log_documents(store: PromptStore) -> None:
    """Log what waits in the tokens, in the owner and in the rules on approvals; rollouts have their poller.

    Raises:
        StoreError: A document cannot be read.
    """
    log = AuditLog(store)
    if (tokens := store.read_tokens()) is not None:
        log.follow(*tokens, store.write_tokens)
    if (owner := store.read_owner()) is not None:
        log.follow(*owner, store.write_owner)
    Approvals(store, log).settle()
