"""Search of a task's settings by successive halving (K. Jamieson, A. Talwalkar, AISTATS 2016).

Every round tunes all candidates that are left, fused in packs, and keeps the better half by the loss on
validation images; each round has twice the epochs of the one before. A round is a whole tuning with its own
warm-up and decay, for a schedule that is cut short says little of a learning rate. Held-out images play no
part.

Shapes: B images.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from ship.backbone import Backbone
from ship.data import Split, TaskData
from ship.errors import ShipError, TuningError
from ship.settings.config import TuneConfig, count_epochs
from ship.settings.search_config import AXES, MIN_IMAGES_TO_HOLD_OUT, NUM_FOLDS, SearchConfig
from ship.tuning.member import PackTask, TuneResult
from ship.tuning.run import tune_pack

__all__ = ["SearchResult", "Trial", "make_folds", "search"]

_HELD_OUT_SHARE = 0.2
# Fewer steps tell settings apart by chance.
_MIN_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate in one round.

    Attributes:
        round: From 1.
        settings: Its values on the searched axes.
        epochs: Epochs of this round.
        val_loss: Cross-entropy on validation images, mean over folds; infinite if the tuning failed.
        val_accuracy: Accuracy on validation images, mean over folds; 0 if the tuning failed.
    """

    round: int
    settings: dict[str, Any]
    epochs: int
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Result of a search.

    Attributes:
        config: Settings to tune with, on all training images.
        trials: All of them, in order. Empty where there was nothing to choose, or nothing to choose by: no
            class has a second image.
    """

    config: TuneConfig
    trials: tuple[Trial, ...]


def search(
    backbone: Backbone,
    data: TaskData,
    config: TuneConfig,
    search_config: SearchConfig,
    *,
    on_epoch: Callable[[], None] | None = None,
    tune_all: Callable[[Sequence[PackTask]], list[TuneResult | Exception]] | None = None,
) -> SearchResult:
    """Choose settings for a task.

    Args:
        backbone: The frozen network, in float32; it is not changed.
        data: Data of the task. Candidates are compared on its validation images, unless the result is
            measured on these too; else on a fifth of the training images, or of few images on each third
            in turn.
        config: Gives all settings that are not searched.
        search_config: Values to try.
        on_epoch: Called after each epoch of each candidate; an exception in it ends the search.
        tune_all: Tunes the candidates of a round; by default ``tune_pack``.

    Raises:
        ConfigError: No candidate fits the backbone or the data.
        TuningError: No candidate could be tuned.
    """
    left, folds = search_config.candidates(config), make_folds(data, config.seed)
    if len(left) == 1 or not folds:
        return SearchResult(config=left[0] if len(left) == 1 else config, trials=())
    trials: list[Trial] = []
    num_rounds = math.ceil(math.log2(len(left)))
    for number in range(1, num_rounds + 1):
        share = 2.0 ** (number - 1 - num_rounds)
        scores = _run_round(tune_all or partial(tune_pack, backbone), folds, left, share, on_epoch)
        for candidate, (epochs, loss, accuracy) in zip(left, scores, strict=True):
            settings = {axis: getattr(candidate, axis) for axis in AXES if getattr(search_config, axis)}
            measured: dict[str, Any] = {"epochs": epochs, "val_loss": loss, "val_accuracy": accuracy}
            trials.append(Trial(round=number, settings=settings, **measured))
        order = sorted(range(len(left)), key=lambda i: scores[i][1])
        left = [left[i] for i in sorted(order[: math.ceil(len(left) / 2)])]
    return SearchResult(config=left[0], trials=tuple(trials))


def make_folds(data: TaskData, seed: int) -> list[TaskData]:
    """Data to choose settings by: each with training and validation images, and no test.

    A class keeps at least one image to train on. Without a class of two images there is no fold.
    """
    if data.val is not None and data.test is not None:
        return [replace(data, test=None)]
    labels_B = data.train.labels_B
    is_small = len(labels_B) < MIN_IMAGES_TO_HOLD_OUT
    num_parts = NUM_FOLDS if is_small else round(1 / _HELD_OUT_SHARE)
    part_B = _deal(labels_B, num_parts, Generator().manual_seed(seed))
    folds = []
    for number in range(num_parts if is_small else 1):
        is_val_B = part_B == number
        if bool(is_val_B.any()):
            digest = hashlib.sha256(f"{data.fingerprint}:{seed}:{number}".encode()).hexdigest()
            train, val = _take(data.train, ~is_val_B), _take(data.train, is_val_B)
            folds.append(TaskData(labels=data.labels, train=train, val=val, test=None, fingerprint=digest))
    return folds


def _run_round(
    tune_all: Callable[[Sequence[PackTask]], list[TuneResult | Exception]],
    folds: Sequence[TaskData],
    candidates: Sequence[TuneConfig],
    share: float,
    on_epoch: Callable[[], None] | None,
) -> list[tuple[int, float, float]]:
    """Epochs, loss and accuracy of each candidate after this share of its epochs, mean over folds."""
    stopped: list[Exception] = []

    def report(_: object) -> None:
        if on_epoch is not None and not stopped:
            try:
                on_epoch()
            except Exception as error:
                stopped.append(error)
        if stopped:
            raise stopped[0]

    epochs = [_shortened(config, len(folds[0].train), share) for config in candidates]
    tasks = [
        PackTask(data=fold, config=replace(config, epochs=number, min_steps=0, patience=0), on_epoch=report)
        for fold in folds
        for config, number in zip(candidates, epochs, strict=True)
    ]
    outcomes = tune_all(tasks)
    if stopped:
        raise stopped[0]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for error in errors:
        if not isinstance(error, ShipError):
            raise error
    scores = []
    for i, number in enumerate(epochs):
        found = [_score(outcome) for outcome in outcomes[i :: len(candidates)]]
        means = torch.tensor(found, dtype=torch.float64).mean(dim=0).tolist()
        scores.append((number, means[0], means[1]))
    if all(math.isinf(val_loss) for _, val_loss, _ in scores):
        raise errors[0] if errors else TuningError("no candidate of the search has a finite validation loss")
    return scores


def _shortened(config: TuneConfig, num_train: int, share: float) -> int:
    fewest = math.ceil(_MIN_STEPS / math.ceil(num_train / config.batch_size))
    return max(fewest, math.ceil(count_epochs(config, num_train) * share))


def _score(outcome: TuneResult | Exception) -> tuple[float, float]:
    if isinstance(outcome, Exception):
        return math.inf, 0.0
    last = outcome.history[-1]
    assert last.val_loss is not None, "every fold has validation images"
    assert last.val_accuracy is not None, "every fold has validation images"
    return (last.val_loss if math.isfinite(last.val_loss) else math.inf), last.val_accuracy


def _deal(labels_B: Tensor, num_parts: int, generator: Generator) -> Tensor:
    """A part for each image, class by class in turn; -1 for the only image of a class."""
    part_B = torch.full_like(labels_B, -1)
    num_dealt = 0
    for label in labels_B.unique().tolist():
        members = (labels_B == label).nonzero()[:, 0]
        if len(members) > 1:
            shuffled = members[torch.randperm(len(members), generator=generator)]
            # Classes go on where the one before ended, so that parts of few images are of one size.
            part_B[shuffled] = (torch.arange(len(members)) + num_dealt) % num_parts
            num_dealt += len(members)
    return part_B


def _take(split: Split, chosen_B: Tensor) -> Split:
    places = chosen_B.nonzero()[:, 0].tolist()
    return Split(
        images_B3HW=split.images_B3HW[chosen_B],
        labels_B=split.labels_B[chosen_B],
        paths=tuple(split.paths[place] for place in places),
    )
