"""A rule that was set for a champion outlives it: the version that takes its place keeps to the same."""

from orchestrator.registry.thresholds import Wishes, choice_of
from orchestrator.store.documents.audit import Author, shortened
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import CARD, RECORD, PromptCard
from ship.artifact.scores import ScoreOrigin
from ship.decision.choosing import choose_rule
from ship.errors import ConfigError

__all__ = ["inherit_rule"]


def inherit_rule(
    store: PromptStore, task: str, artifact: str, before: str, author: Author, time_s: float
) -> str:
    """Choose a rule for a new version that keeps to what the champion's rule does; returns its digest.

    It is chosen on the new version's own held-out answers, as ``ship threshold`` would.

    Args:
        store: Store of the artifact and of both rules.
        task: Name of the task.
        artifact: Digest of the new version's artifact.
        before: Digest of the champion's rule.
        author: Author of the new version.
        time_s: Current time, seconds since the epoch.

    Raises:
        ConfigError: It cannot keep to it; says what it can.
        StoreError: The store cannot be read or written.
    """
    set_before = store.rules.read(before)
    held_out = store.fetch_held_out(artifact)
    if held_out is None or not len(held_out):
        raise ConfigError("it keeps no answers about held-out images to choose a rule on")
    files = store.fetch(artifact)
    card = PromptCard.from_json(files[CARD])
    scores = ScoreOrigin.read(card, files.get(RECORD, b""))
    rule = choose_rule(
        held_out.labels,
        held_out.logits_BC,
        held_out.labels_B,
        held_out.distances_B,
        digests=held_out.digests,
        **choice_of(set_before.rule, Wishes(), own=card.decision, scores=scores, labels=held_out.labels),
    )
    said = f": {set_before.reason}" if set_before.reason else ""
    return store.rules.write(
        StoredRule(
            task=task,
            artifact=artifact,
            rule=rule,
            by=author.by,
            host=author.host,
            time_s=time_s,
            reason=shortened(f"as {set_before.by} set it for the champion before{said}"),
        )
    )
