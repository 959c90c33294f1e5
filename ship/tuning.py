"""Tunes one task's prompt on the frozen backbone (paper: section 3.4; method.md, section 5).

The order of images depends on seed and epoch alone, and nothing else is drawn after the start: a run that is
resumed from a snapshot ends bit for bit where an uninterrupted one does (on a CPU).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ship.backbone import Backbone
from ship.config import TuneConfig
from ship.data import Split, TaskData
from ship.errors import TuningError
from ship.evaluation import Evaluation, evaluate_logits, predict_logits
from ship.losses import total_loss
from ship.model import forward
from ship.preparation import Preparation, prepare
from ship.prompts import Prompt
from ship.state import EpochReport, TuningState

__all__ = ["EpochReport", "TuneResult", "tune"]

# Warm-up takes at most this share of all epochs: ten of ten would leave nothing to tune at full rate.
_MAX_WARMUP_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What tuning found.

    Attributes:
        prompt: Of the last epoch. Epochs are never selected by held-out accuracy.
        preparation: Affinity, threshold and the linear probe's accuracy.
        history: One report an epoch.
        evaluation: On the held-out images.
        tuning_s: Seconds spent, including those before a resumption.
    """

    prompt: Prompt
    preparation: Preparation
    history: list[EpochReport]
    evaluation: Evaluation
    tuning_s: float


def tune(
    backbone: Backbone,
    data: TaskData,
    config: TuneConfig,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    resume: bytes | None = None,
    on_snapshot: Callable[[bytes], None] | None = None,
    snapshot_every: int = 10,
) -> TuneResult:
    """Tune one task.

    Args:
        backbone: The frozen network; it is not changed.
        data: Images and labels.
        config: Settings.
        on_epoch: Called after each epoch; an exception in it ends the tuning.
        resume: A snapshot of the same data, settings and backbone to go on from.
        on_snapshot: Called with a snapshot every ``snapshot_every`` epochs.
        snapshot_every: In epochs.

    Raises:
        ConfigError: The settings do not fit the backbone.
        TuningError: The loss is not finite.
        ArtifactError: The snapshot is damaged or of another tuning.
    """
    identity = {"config": config.to_dict(), "data": data.fingerprint, "backbone": backbone.fingerprint}
    clock_s = time.monotonic()
    if resume is None:
        state = TuningState.start(*prepare(backbone, data, config))
    else:
        state = TuningState.from_bytes(resume, identity, backbone.device)
    num_epochs = count_epochs(config, len(data.train.labels_B))
    while len(state.history) < num_epochs:
        report = _run_epoch(backbone, data, state, len(state.history) + 1, num_epochs)
        state.history.append(report)
        state.spent_s += time.monotonic() - clock_s
        clock_s = time.monotonic()
        if on_snapshot and report.epoch % snapshot_every == 0 and report.epoch < num_epochs:
            on_snapshot(state.to_bytes(identity))
        if on_epoch:
            on_epoch(report)
    return TuneResult(
        prompt=state.prompt,
        preparation=state.preparation,
        history=state.history,
        evaluation=_evaluate(backbone, state.prompt, data.held_out),
        tuning_s=state.spent_s + time.monotonic() - clock_s,
    )


def count_epochs(config: TuneConfig, num_images: int) -> int:
    """``epochs``, or as many as ``min_steps`` asks for where that is more."""
    steps_per_epoch = math.ceil(num_images / config.batch_size)
    return max(config.epochs, math.ceil(config.min_steps / steps_per_epoch))


def learning_rate_at(config: TuneConfig, progress: float, num_epochs: int) -> float:
    """Linear warm-up, then a cosine to zero.

    Args:
        config: Gives the rate at the top and the epochs of warm-up.
        progress: Epochs done, with fractions.
        num_epochs: In all.
    """
    warmup = min(config.warmup_epochs, num_epochs * _MAX_WARMUP_SHARE)
    if progress < warmup:
        return config.learning_rate * progress / warmup
    share = (progress - warmup) / (num_epochs - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def _run_epoch(
    backbone: Backbone, data: TaskData, state: TuningState, epoch: int, num_epochs: int
) -> EpochReport:
    config, train = state.prompt.config, data.train
    num_images = len(train.labels_B)
    order_B = torch.randperm(num_images, generator=_generator(config.seed, epoch))
    sums = torch.zeros(3, dtype=torch.float64)
    batches = order_B.split(config.batch_size)
    for step, chosen_B in enumerate(batches, start=1):
        progress = epoch - 1 + step / len(batches)
        for group in state.optimizer.param_groups:
            group["lr"] = group["rate_scale"] * learning_rate_at(config, progress, num_epochs)
        sums += _run_step(backbone, train, state, chosen_B)
        if not bool(sums.isfinite().all()):
            raise TuningError(
                f"the loss is not finite in epoch {epoch}, step {step}; lower learning_rate "
                f"({config.learning_rate:g}) or matching_weight ({config.matching_weight:g})"
            )
    loss, matching, correct = (sums / num_images).tolist()
    return EpochReport(
        epoch=epoch,
        num_epochs=num_epochs,
        loss=loss,
        matching_loss=matching,
        train_accuracy=correct,
        val_accuracy=_val_accuracy(backbone, state.prompt, data),
        learning_rate=state.optimizer.param_groups[0]["lr"],
        time_s=time.time(),
    )


def _run_step(backbone: Backbone, train: Split, state: TuningState, chosen_B: torch.Tensor) -> torch.Tensor:
    """One optimizer step; returns sums over the batch: loss, matching loss, right answers."""
    images_BCHW = backbone.normalise(train.images_B3HW[chosen_B])
    labels_B = train.labels_B[chosen_B].to(backbone.device)
    output = forward(backbone, state.prompt, images_BCHW, with_matching=True)
    assert output.matching is not None, "asked for"
    loss = total_loss(output.logits_BC, labels_B, output.matching, state.prompt, state.head_start_CD)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    with torch.no_grad():
        correct = (output.logits_BC.argmax(dim=1) == labels_B).sum()
        means = torch.stack([loss, output.matching]).double() * len(chosen_B)
        return torch.cat([means, correct.double().unsqueeze(0)]).cpu()


def _generator(seed: int, epoch: int) -> torch.Generator:
    """The order of an epoch's images, whatever came before it."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _val_accuracy(backbone: Backbone, prompt: Prompt, data: TaskData) -> float | None:
    if data.val is None:
        return None
    return _evaluate(backbone, prompt, data.val).accuracy


def _evaluate(backbone: Backbone, prompt: Prompt, split: Split) -> Evaluation:
    return evaluate_logits(predict_logits(backbone, prompt, split.images_B3HW), split.labels_B)
