"""Gathering of a task's section from the store: its artifact, its held-out answers, the version before."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import StoreError
from orchestrator.report.section import Section, make_section
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import CARD, RECORD

__all__ = ["gather_section"]


def gather_section(store: PromptStore, task: str, digest: str, verdict: Mapping[str, Any]) -> Section:
    """The section about an artifact.

    Args:
        store: Store of artifacts and rollouts.
        task: Name of the task.
        digest: Digest of the artifact.
        verdict: The verdict on the task.

    Raises:
        StoreError: The artifact cannot be read, or is none that a report can be made of.
    """
    files = store.fetch(digest)
    try:
        return make_section(
            json.loads(files[CARD]),
            json.loads(files[RECORD]),
            store.fetch_held_out(digest),
            verdict=verdict,
            before=_card_before(store, task, digest),
        )
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise StoreError(f"{store.uri(digest)}: no report can be made of it: {error!r}") from error


def _card_before(store: PromptStore, task: str, digest: str) -> dict[str, Any] | None:
    """Card of the version that a new one took the place of, or did not; None without one."""
    stored = store.read_rollout(task)
    if stored is None:
        return None
    rollout = stored[0]
    other = rollout.digest("previous" if rollout.digest("champion") == digest else "champion")
    if other is None or other == digest:
        return None
    card: dict[str, Any] = json.loads(store.fetch(other)[CARD])
    return {**card, "digest": other}
