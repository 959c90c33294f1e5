"""Search of a task's settings by successive halving (K. Jamieson, A. Talwalkar, AISTATS 2016), and fallback.

First the linear probes, which cost no step, choose the head. Every round then tunes all candidates that are
left, fused in packs, and keeps the better half by the loss on validation images, calibrated as what is
published is (see ``Balance.calibrated_losses``); each round has twice the epochs of the one before. A round
is a whole tuning with its own warm-up and decay, for a schedule that is cut short says little of a learning
rate. The last word is a paired one: the settings as given take the probe's place, and the winner takes
theirs, only with a loss that is lower by a standard error. Held-out images play no part.

Shapes: B images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.data import TaskData
from ship.errors import ShipError, TuningError
from ship.settings.config import TuneConfig, count_epochs
from ship.settings.search_config import AXES, SearchConfig
from ship.tuning.folds import make_folds
from ship.tuning.member import PackTask, TuneResult
from ship.tuning.preparation import check_fit
from ship.tuning.run import tune_pack

__all__ = ["SearchResult", "SearchStep", "Trial", "search"]

# Fewer steps tell settings apart by chance.
_MIN_STEPS = 20

TuneAll = Callable[[Sequence[PackTask]], list[TuneResult | Exception]]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate in one round.

    Attributes:
        round: From 1; 0 for linear probes.
        settings: Its kind, its head and its values on the searched axes.
        epochs: Epochs of this round; 0 for linear probes.
        val_loss: Calibrated cross-entropy on validation images, mean of folds; infinite if the tuning failed.
        val_accuracy: Accuracy on validation images, mean over folds; 0 if the tuning failed.
    """

    round: int
    settings: dict[str, Any]
    epochs: int
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """Position in a search, for people who wait for it.

    Attributes:
        round: Round under way, from 1; 0 for linear probes.
        num_rounds: Rounds in all.
        num_candidates: Candidates of this round.
        is_new_round: Whether the round has only begun.
        epoch: Epochs so far, of all candidates on all folds in all rounds.
        num_epochs: As many in the end.
    """

    round: int
    num_rounds: int
    num_candidates: int
    is_new_round: bool
    epoch: int
    num_epochs: int


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Result of a search.

    Attributes:
        config: Settings to tune with, on all training images.
        trials: All of them, in order. Empty where there was nothing to choose, or nothing to choose by: no
            class has a second image.
        reason: Sentences with the numbers of the choice; empty where there was nothing to choose.
        num_passes: Training images times epochs, of all candidates; None if what was tried is not known.
        tuning_s: Seconds spent on them.
    """

    config: TuneConfig
    trials: tuple[Trial, ...] = ()
    reason: str = ""
    num_passes: int | None = 0
    tuning_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Score:
    """What a candidate reached in one round; without losses if the tuning failed."""

    epochs: int
    losses_B: Tensor | None
    accuracy: float

    @property
    def loss(self) -> float:
        loss = math.inf if self.losses_B is None else float(self.losses_B.mean())
        return loss if math.isfinite(loss) else math.inf


def search(
    backbone: Backbone,
    data: TaskData,
    config: TuneConfig,
    search_config: SearchConfig | None = None,
    *,
    on_epoch: Callable[[SearchStep], None] | None = None,
    tune_all: TuneAll | None = None,
) -> SearchResult:
    """Choose settings for a task.

    Args:
        backbone: The frozen network, in float32; it is not changed.
        data: Data of the task. Candidates are compared on its validation images, unless the result is
            measured on these too; else on a fifth of the training images, or of few images on each third
            in turn.
        config: Gives all settings that are not searched.
        search_config: Values to try; None for the fallback alone.
        on_epoch: Called as a round starts and after each epoch of a candidate; an exception ends the search.
        tune_all: Tunes the candidates of a round; by default ``tune_pack``.

    Raises:
        ConfigError: ``config`` does not fit the backbone or the data.
        TuningError: No candidate could be tuned.
    """
    check_fit(backbone, data, config)
    wanted = search_config or SearchConfig()
    heads = wanted.heads(config)
    may_be_probe = config.fallback or config.kind == "probe" or "probe" in wanted.kind
    if len(heads) == len(wanted.candidates(config)) == 1 and (config.kind == "probe" or not may_be_probe):
        return SearchResult(config=config)
    probes = [replace(config, kind="probe", head=head, start="gated") for head in heads]
    folds = make_folds(data, config.seed)
    if not folds:
        reason = "No class has a second image, so nothing could be compared."
        return SearchResult(config=probes[0] if may_be_probe else config, reason=reason)
    rounds = _Rounds(tune_all or partial(tune_pack, backbone), folds, wanted, on_epoch)
    # For another head than this one, there may be more or fewer.
    rounds.plan([each for each in wanted.candidates(config) if each.kind != "probe"])
    # Without a choice of heads and without the fallback they would decide nothing.
    scores = rounds.run(0, probes, 0.0) if may_be_probe or len(heads) > 1 else []
    probe = min(zip(probes, scores, strict=True), key=lambda pair: pair[1].loss)[0] if scores else probes[0]
    tuned = [each for each in wanted.candidates(config, probe.head) if each.kind != "probe"]
    contenders = [config] if config in tuned else []
    if len(tuned) > 1 or (tuned and may_be_probe):
        contenders.append(rounds.halve(tuned))
    chosen, reasons = (probe if may_be_probe else config), []
    for contender in dict.fromkeys(contenders):
        if contender != chosen:
            is_better, reason = rounds.compare(contender, chosen)
            chosen = contender if is_better else chosen
            reasons.append(reason)
    return SearchResult(
        config=chosen,
        trials=tuple(rounds.trials),
        reason=" ".join(reasons),
        num_passes=rounds.num_passes,
        tuning_s=rounds.tuning_s,
    )


class _Rounds:
    """The rounds of a search: tunes candidates on all folds, and remembers what came of it."""

    def __init__(
        self,
        tune_all: TuneAll,
        folds: Sequence[TaskData],
        search_config: SearchConfig,
        on_epoch: Callable[[SearchStep], None] | None,
    ) -> None:
        self._tune_all, self._folds, self._on_epoch = tune_all, folds, on_epoch
        self._axes = [axis for axis in AXES if axis in ("kind", "head") or getattr(search_config, axis)]
        self._scores: dict[TuneConfig, dict[int, _Score]] = {}
        self.trials: list[Trial] = []
        self.num_passes, self.tuning_s = 0, 0.0
        # Epochs in all, by round; and those so far.
        self._planned: list[int] = []
        self._num_done = 0

    def plan(self, candidates: Sequence[TuneConfig]) -> None:
        """Count the epochs of all rounds of ``halve``."""
        num_rounds = _num_rounds(candidates)
        self._planned = [0] * (num_rounds + 1)
        left, num_train = len(candidates), len(self._folds[0].train)
        for number in range(1, num_rounds + 1):
            epochs = _shortened(candidates[0], num_train, _share(number, num_rounds))
            self._planned[number] = left * len(self._folds) * epochs
            left = math.ceil(left / 2)

    def halve(self, candidates: Sequence[TuneConfig]) -> TuneConfig:
        """The last candidate after as many rounds as it takes, at least one."""
        self.plan(candidates)
        left, num_rounds = list(candidates), _num_rounds(candidates)
        for number in range(1, num_rounds + 1):
            scores = self.run(number, left, _share(number, num_rounds))
            order = sorted(range(len(left)), key=lambda i: scores[i].loss)
            left = [left[i] for i in sorted(order[: math.ceil(len(left) / 2)])]
        return left[0]

    def run(self, number: int, candidates: Sequence[TuneConfig], share: float) -> list[_Score]:
        """Tune candidates for this share of their epochs.

        Raises:
            ShipError: None of them has a finite loss.
        """
        num_train = len(self._folds[0].train)
        epochs = [_shortened(config, num_train, share) for config in candidates]
        # A candidate that failed has left some out.
        self._num_done = sum(self._planned[:number])
        outcomes = self._tune(number, candidates, epochs)
        scores = []
        for i, config in enumerate(candidates):
            score = _score(outcomes[i :: len(candidates)], epochs[i] if number else 0)
            scores.append(score)
            self._scores.setdefault(config, {})[number] = score
            self.trials.append(
                Trial(
                    round=number,
                    settings={axis: getattr(config, axis) for axis in self._axes},
                    epochs=score.epochs,
                    val_loss=score.loss,
                    val_accuracy=score.accuracy,
                )
            )
        if all(math.isinf(score.loss) for score in scores):
            errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            raise errors[0] if errors else TuningError("no candidate has a finite validation loss")
        return scores

    def compare(self, contender: TuneConfig, other: TuneConfig) -> tuple[bool, str]:
        """Whether the contender's loss is lower by a standard error of the paired differences, and in words.

        They are compared in the last round of both; a linear probe is the same in all.
        """
        contenders, others = self._scores[contender], self._scores[other]
        common = max(set(contenders) & set(others), default=max(contenders))
        first, second = contenders[common], others.get(common, others[max(others)])
        first_words, second_words = (
            f"{self._describe(config)} (loss {score.loss:.4f})"
            for config, score in ((contender, first), (other, second))
        )
        if first.losses_B is None or second.losses_B is None or math.isinf(first.loss):
            is_better = first.loss < second.loss
            return is_better, f"{first_words} {'beats' if is_better else 'does not beat'} {second_words}."
        gain_B = second.losses_B - first.losses_B
        gain, error = float(gain_B.mean()), float(gain_B.std(correction=0)) / math.sqrt(len(gain_B))
        is_better = gain > 0.0 and gain >= error
        return is_better, (
            f"{first_words} {'takes' if is_better else 'does not take'} the place of {second_words}: lower "
            f"by {gain:.4f} on {len(gain_B)} validation images, with a standard error of {error:.4f}."
        )

    def _describe(self, config: TuneConfig) -> str:
        """The settings that tell a candidate from the others."""
        idle = ("augment", "rank", "learning_rate", "weight_decay", "num_independent", "threshold")
        axes = [axis for axis in self._axes if config.kind != "probe" or axis not in idle]
        return ", ".join(f"{axis} {getattr(config, axis)}" for axis in axes)

    def _tell(self, number: int, num_candidates: int, *, is_new_round: bool) -> None:
        if self._on_epoch is not None:
            step = SearchStep(
                round=number,
                num_rounds=len(self._planned) - 1,
                num_candidates=num_candidates,
                is_new_round=is_new_round,
                epoch=self._num_done,
                num_epochs=sum(self._planned),
            )
            self._on_epoch(step)

    def _tune(
        self, number: int, candidates: Sequence[TuneConfig], epochs: Sequence[int]
    ) -> list[TuneResult | Exception]:
        """Outcomes on each fold of each candidate in turn.

        Raises:
            Exception: What ``on_epoch`` raised, or an error that is none of ours.
        """
        stopped: list[Exception] = []

        def report(_: object) -> None:
            if not stopped:
                self._num_done += 1
                try:
                    self._tell(number, len(candidates), is_new_round=False)
                except Exception as error:
                    stopped.append(error)
            if stopped:
                raise stopped[0]

        self._tell(number, len(candidates), is_new_round=True)
        tasks = [
            PackTask(data=fold, config=replace(config, epochs=num, min_steps=0, patience=0), on_epoch=report)
            for fold in self._folds
            for config, num in zip(candidates, epochs, strict=True)
        ]
        outcomes = self._tune_all(tasks)
        if stopped:
            raise stopped[0]
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, ShipError):
                raise outcome
        for task, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, TuneResult) and task.config.kind != "probe":
                self.num_passes += task.config.epochs * len(task.data.train)
                self.tuning_s += outcome.tuning_s
        return outcomes


def _num_rounds(candidates: Sequence[TuneConfig]) -> int:
    return max(1, math.ceil(math.log2(len(candidates)))) if candidates else 0


def _share(number: int, num_rounds: int) -> float:
    """Share of its epochs that a candidate is tuned for in a round."""
    return 2.0 ** (number - 1 - num_rounds)


def _shortened(config: TuneConfig, num_train: int, share: float) -> int:
    """This share of the epochs, but enough for some steps if there are so many."""
    fewest = math.ceil(_MIN_STEPS / math.ceil(num_train / config.batch_size))
    all_epochs = count_epochs(config, num_train)
    return min(all_epochs, max(fewest, math.ceil(all_epochs * share)))


def _score(outcomes: Sequence[TuneResult | Exception], epochs: int) -> _Score:
    """Score over all folds' images together."""
    results = [outcome for outcome in outcomes if isinstance(outcome, TuneResult)]
    if len(results) < len(outcomes):
        return _Score(epochs=epochs, losses_B=None, accuracy=0.0)
    accuracy = sum(result.evaluation.accuracy for result in results) / len(results)
    losses_B = torch.cat([result.losses_B for result in results]).double()
    return _Score(epochs=epochs, losses_B=losses_B, accuracy=accuracy)
