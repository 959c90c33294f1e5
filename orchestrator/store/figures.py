"""Pictures of a tuning for its MLflow run: the affinity of layers with its levels, and the confusion matrix.

matplotlib's object interface only: pyplot keeps global state, which a library must not touch.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["draw_affinity", "draw_confusion", "draw_figures"]

DPI = 110
MAX_NAMED_LABELS = 30
MAX_NUMBERED_LABELS = 12


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
    from matplotlib.patches import Rectangle

    figure, axes = _axes(6.0)
    image = axes.imshow(affinity_LL, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=axes, label="cosine of CLS features")
    ends = [*level_starts[1:], len(affinity_LL)]
    for start, end in zip(level_starts, ends, strict=True):
        frame = Rectangle(
            (start - 0.5, start - 0.5), end - start, end - start, fill=False, edgecolor="red", linewidth=2
        )
        axes.add_patch(frame)
    axes.set(
        xlabel="layer",
        ylabel="layer",
        title=f"{len(level_starts)} levels, affinity threshold {threshold:.3f}",
    )
    return _png(figure)


def draw_confusion(confusion_CC: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """PNG of the confusion matrix on held-out images, coloured by the share of the true class.

    Args:
        confusion_CC: Number of images by true class (rows) and predicted class (columns).
        labels: Class names.
    """
    _check_square(confusion_CC)
    shares_CC = [[count / max(1, sum(row)) for count in row] for row in confusion_CC]
    figure, axes = _axes(min(12.0, 4.0 + 0.3 * len(labels)))
    image = axes.imshow(shares_CC, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", title="held-out images")
    if len(labels) <= MAX_NAMED_LABELS:
        names = [label[:24] for label in labels]
        # A label is anybody's text: a `$` in it starts no formula.
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    if len(labels) <= MAX_NUMBERED_LABELS:
        _number(axes, confusion_CC, shares_CC)
    return _png(figure)


def _number(axes: Any, confusion_CC: Sequence[Sequence[int]], shares_CC: Sequence[Sequence[float]]) -> None:
    for row, counts in enumerate(confusion_CC):
        for column, count in enumerate(counts):
            color = "white" if shares_CC[row][column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color)


def _check_square(matrix: Sequence[Sequence[float]]) -> None:
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        raise ValueError(f"expected a square matrix, found rows of {[len(row) for row in matrix][:20]}")


def _axes(inches: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(inches + 1.0, inches), dpi=DPI, layout="tight")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A label may be written in a script that the font lacks; it then shows as boxes.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        # Not `savefig`, which draws everything twice.
        figure.canvas.print_png(buffer)
    return buffer.getvalue()
