"""Pictures of a tuning for its MLflow run: the affinity of layers with its levels, and the confusions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.registry.heatmap import Heatmap

__all__ = ["draw_affinity", "draw_confusion", "draw_figures"]

MAX_NAMED_LABELS = 30
MAX_NUMBERED_LABELS = 12
MAX_LABEL_CHARS = 24


def draw_figures(record: Mapping[str, Any]) -> dict[str, bytes]:
    """File name to PNG of all figures of an artifact's ``record.json``.

    Raises:
        KeyError: The record lacks something.
        ValueError: A matrix is not square.
    """
    return {
        "figures/affinity.png": draw_affinity(
            record["affinity"], record["level_starts"], record["threshold"]
        ),
        "figures/confusion.png": draw_confusion(record["confusion"], record["labels"]),
    }


def draw_affinity(
    affinity_LL: Sequence[Sequence[float]], level_starts: Sequence[int], threshold: float
) -> bytes:
    """PNG of the cosine between layers, with a frame around each level.

    Args:
        affinity_LL: Layers by layers.
        level_starts: First layer of each level.
        threshold: Affinity under which a level ends.
    """
    _check_square(affinity_LL)
    known = [value for row in affinity_LL for value in row if math.isfinite(value)]
    ends = [*level_starts[1:], len(affinity_LL)]
    return Heatmap(
        values_NN=affinity_LL,
        low=min(known, default=0.0),
        high=max(known, default=1.0),
        colors="viridis",
        title=f"{len(level_starts)} levels, affinity threshold {threshold:.3f}",
        across="layer",
        down="layer",
        bar="cosine of CLS features",
        frames=list(zip(level_starts, ends, strict=True)),
    ).to_png()


def draw_confusion(confusion_CC: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """PNG of the confusion matrix on held-out images, coloured by the share of the true class.

    Args:
        confusion_CC: Number of images by true class (rows) and predicted class (columns).
        labels: Class names.
    """
    _check_square(confusion_CC)
    has_numbers = len(labels) <= MAX_NUMBERED_LABELS
    return Heatmap(
        values_NN=[[count / max(1, sum(row)) for count in row] for row in confusion_CC],
        low=0.0,
        high=1.0,
        colors="Blues",
        title="held-out images",
        across="predicted",
        down="true",
        bar="share of the true class",
        names=[label[:MAX_LABEL_CHARS] for label in labels] if len(labels) <= MAX_NAMED_LABELS else None,
        texts_NN=[[str(count) for count in row] for row in confusion_CC] if has_numbers else None,
    ).to_png()


def _check_square(matrix: Sequence[Sequence[float]]) -> None:
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        raise ValueError(f"expected a square matrix, found rows of {[len(row) for row in matrix][:20]}")
