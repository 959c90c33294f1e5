"""What an artifact's scores are of: how frequent each class is in them, as its record tells."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeGuard

import torch

from ship.artifact.card import PromptCard
from ship.tuning.balance import Balance

__all__ = ["ScoreOrigin"]


@dataclass(frozen=True, kw_only=True)
class ScoreOrigin:
    """What decision rules are chosen with, beside held-out answers; see ``choose_rule``.

    Attributes:
        balanced_scores: Whether the scores are those of equally frequent classes.
        train_counts: Training images of each class; None where they are not known.
    """

    balanced_scores: bool = False
    train_counts: tuple[int, ...] | None = None

    @classmethod
    def read(cls, card: PromptCard, record: bytes) -> Self | None:
        """The origin of an artifact's scores; None where its record does not count the training images.

        Records of an earlier version count them, and do not say whether scores are balanced: that follows
        from the setting and the counts.

        Args:
            card: The artifact's card.
            record: Content of its ``record.json``; what is not as expected counts as not told.
        """
        try:
            values = json.loads(record)
        except (ValueError, RecursionError):
            values = None
        told = values if isinstance(values, Mapping) else {}
        counts = told.get("train_counts")
        if not _are_counts(counts, len(card.labels)):
            return None
        balanced = told.get("balanced_scores")
        if not isinstance(balanced, bool):
            balanced = Balance.of_counts(card.config, torch.tensor(counts)).balanced_scores
        return cls(balanced_scores=balanced, train_counts=tuple(counts))


def _are_counts(found: object, num: int) -> TypeGuard[list[int]]:
    if not isinstance(found, list) or len(found) != num:
        return False
    return all(type(count) is int and 0 <= count < 1 << 53 for count in found) and any(found)
