"""A figure of one tuning: affinity and levels, learning curve, confusion matrix. Needs matplotlib."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from ship.tuning import TuneResult

__all__ = ["TuningFigure", "plot_tuning"]

# Beyond this, numbers in cells and names on axes would overlap.
_MAX_NAMED = 20


class TuningFigure(Figure):
    """A figure that notebooks show also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def plot_tuning(result: TuneResult, labels: Sequence[str]) -> TuningFigure:
    """Draw a tuning's result.

    Args:
        result: Result of the tuning.
        labels: Class names.
    """
    figure = TuningFigure(figsize=(15, 4.5), layout="constrained")
    affinity, curve, confusion = figure.subplots(1, 3)
    _draw_affinity(affinity, result)
    _draw_curve(curve, result)
    _draw_confusion(confusion, result, labels)
    return figure


def _draw_affinity(axes: Any, result: TuneResult) -> None:
    image = axes.imshow(result.preparation.affinity, cmap="viridis")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
    for start in result.prompt.level_starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=1.5)
        axes.axvline(start - 0.5, color="white", linewidth=1.5)
    axes.set(
        title=f"affinity of layers, {result.prompt.num_levels} levels (threshold "
        f"{result.preparation.threshold:.3f})",
        xlabel="layer",
        ylabel="layer",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)


def _draw_curve(axes: Any, result: TuneResult) -> None:
    epochs = [report.epoch for report in result.history]
    axes.plot(epochs, [report.loss for report in result.history], color="tab:gray", label="training loss")
    axes.set(
        title=f"held-out accuracy {result.evaluation.accuracy:.3f} (linear probe "
        f"{result.preparation.probe_accuracy:.3f})",
        xlabel="epoch",
        ylabel="loss",
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    shares = axes.twinx()
    shares.plot(
        epochs, [r.train_accuracy for r in result.history], color="tab:blue", label="training accuracy"
    )
    if all(report.val_accuracy is not None for report in result.history):
        shares.plot(
            epochs, [r.val_accuracy for r in result.history], color="tab:orange", label="validation accuracy"
        )
    shares.axhline(result.evaluation.accuracy, color="tab:green", linestyle="--", label="held-out accuracy")
    shares.set(ylim=(0.0, 1.02), ylabel="accuracy")
    lines = [*axes.get_lines(), *shares.get_lines()]
    shares.legend(lines, [line.get_label() for line in lines], loc="center right")


def _draw_confusion(axes: Any, result: TuneResult, labels: Sequence[str]) -> None:
    counts = result.evaluation.confusion_CC
    most = max(map(max, counts))
    axes.imshow(counts, cmap="Blues")
    axes.set(title="held-out images", xlabel="predicted", ylabel="true")
    if len(labels) <= _MAX_NAMED:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        for row, numbers in enumerate(counts):
            for column, number in enumerate(numbers):
                color = "white" if number > most / 2 else "black"
                axes.text(column, row, str(number), ha="center", va="center", color=color)
