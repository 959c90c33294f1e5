"""One task of a pack: its data, prompt, optimizer, place in the schedule, and what it reports.

It knows nothing of other tasks: an error of one task ends that task alone.

Shapes: B images of a batch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.data import Split, TaskData
from ship.errors import TuningError
from ship.evaluation.accuracy import Evaluation, evaluate_logits
from ship.evaluation.prediction import Outputs, predict
from ship.method.losses import total_loss
from ship.method.model import ForwardOutput
from ship.method.prompts import Prompt
from ship.precision import compute_dtype
from ship.settings.config import TuneConfig, count_epochs
from ship.tuning.augment import augment
from ship.tuning.balance import Balance
from ship.tuning.memory import step_bytes
from ship.tuning.optimizer import step_or_nothing
from ship.tuning.preparation import Features, Preparation, bare_features, prepare
from ship.tuning.probe_instead import InsteadOf
from ship.tuning.schedule import has_stalled, learning_rate_at, order_epoch
from ship.tuning.state import EpochReport, TuningState

__all__ = ["DeviceImages", "Member", "PackTask", "TuneResult"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PackTask:
    """One task to tune.

    Attributes:
        data: Images and labels.
        config: Settings.
        on_epoch: Called after each epoch; an exception in it ends this task.
        resume: A snapshot of the same data, settings and backbone to go on from.
        on_snapshot: Called with a snapshot every ``snapshot_every`` epochs; an exception ends this task.
        snapshot_every: Epochs from one snapshot to the next.
        note: Text that snapshots carry along, such as what a search found before.
    """

    data: TaskData
    config: TuneConfig
    on_epoch: Callable[[EpochReport], None] | None = None
    resume: bytes | None = None
    on_snapshot: Callable[[bytes], None] | None = None
    snapshot_every: int = 10
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """Result of a tuning.

    Attributes:
        prompt: Prompt of the last epoch. Epochs are never selected by held-out accuracy.
        preparation: Affinity, threshold and the linear probe's accuracy.
        history: One report an epoch.
        evaluation: Evaluation on the held-out images.
        outputs: Scores and features of the held-out images.
        losses_B: Cross-entropy of each held-out image once calibrated, by the task's ``balance``.
        balanced_scores: Whether the scores are those of equally frequent classes, by the task's ``balance``.
        tuning_s: Seconds spent, including those before a resumption; of a pack's seconds, this task's share.
        instead_of: The tuned prompt whose place this linear probe took, see ``take_the_better``.
    """

    prompt: Prompt
    preparation: Preparation
    history: list[EpochReport]
    evaluation: Evaluation
    outputs: Outputs
    losses_B: Tensor
    balanced_scores: bool
    tuning_s: float
    instead_of: InsteadOf | None = None

    def __repr__(self) -> str:
        """Accuracy and effort."""
        found = self.evaluation
        return (
            f"TuneResult(accuracy {found.accuracy:.4f} ({found.low:.4f} to {found.high:.4f}), linear probe "
            f"{self.preparation.probe_accuracy:.4f}, {len(self.history)} epochs, {self.tuning_s:.1f} s)"
            + ("" if self.instead_of is None else f". {self.instead_of.reason}")
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceImages:
    """Images on the backbone's device, as uint8: a batch, or all training images, which candidates share."""

    images_B3HW: Tensor
    labels_B: Tensor


class Member:
    """A tuning under way.

    Args:
        backbone: The frozen network, in float32; results are measured with it.
        task: Data, settings and callbacks.
        images: The task's training images.
        features: Features of the bare backbone; None where a snapshot is resumed.

    Raises:
        ConfigError: The settings do not fit the backbone or the data.
        ArtifactError: The snapshot is damaged or of another tuning.
    """

    def __init__(
        self, backbone: Backbone, task: PackTask, images: DeviceImages, features: Features | None
    ) -> None:
        self.task, self._backbone, self._images = task, backbone, images
        self.dtype = compute_dtype(task.config.precision, backbone.device)
        self.step_bytes = step_bytes(
            backbone.info, task.config, len(images.labels_B), self.dtype, task.data.num_tiles
        )
        self._identity = {
            "config": task.config.to_dict(),
            "data": task.data.fingerprint,
            "backbone": backbone.fingerprint,
        }
        if task.resume is not None:
            self._state = TuningState.from_bytes(task.resume, self._identity, backbone.device)
        else:
            assert features is not None, "a start needs them"
            self._state = TuningState.start(*prepare(backbone, task.data, task.config, features))
        self._balance = Balance.of(task.config, task.data.train.labels_B, len(task.data.labels))
        self._num_epochs = count_epochs(task.config, len(images.labels_B))
        if task.config.kind == "probe" and features is not None:
            self._state.history.append(self._report_probe(features))
        self._batches: tuple[Tensor, ...] = ()
        self._sums: list[Tensor] = []
        self._batch: DeviceImages | None = None

    @property
    def prompt(self) -> Prompt:
        """The prompt in its present state."""
        return self._state.prompt

    @property
    def is_done(self) -> bool:
        """Whether no epoch is left, or the validation loss has stalled."""
        history = self._state.history
        if self.task.config.kind == "probe":
            return True
        return len(history) >= self._num_epochs or has_stalled(history, self.task.config.patience)

    @property
    def batch_size(self) -> int:
        """Images a step, at most."""
        return min(self.task.config.batch_size, len(self._images.labels_B))

    def spend(self, seconds: float) -> None:
        """Charge time to this task."""
        self._state.spent_s += seconds

    def batch(self) -> DeviceImages:
        """The images of the step that comes next; the same ones until ``apply``."""
        if self._batch is None:
            if not self._batches:
                self._batches = self._order(epoch=len(self._state.history) + 1)
            config, step = self.task.config, len(self._sums)
            chosen_B = self._batches[step]
            images = self._images.images_B3HW[chosen_B]
            epoch = len(self._state.history) + 1
            self._batch = DeviceImages(
                images_B3HW=augment(images, config.augment, config.seed, epoch, step),
                labels_B=self._images.labels_B[chosen_B],
            )
        return self._batch

    def loss(self, output: ForwardOutput) -> Tensor:
        """Loss of this step. Clears the gradients of an earlier one."""
        self._state.optimizer.zero_grad(set_to_none=True)
        assert output.matching is not None, "asked for"
        cross_entropy = self._balance.cross_entropy(output.logits_BC, self.batch().labels_B)
        return total_loss(cross_entropy, output.matching, self.prompt, self._state.head_start_CF)

    @torch.no_grad()
    def apply(self, output: ForwardOutput, loss: Tensor) -> None:
        """Take the step whose gradients have arrived; if it raises, this task is as it was before."""
        labels_B = self.batch().labels_B
        correct = (output.logits_BC.argmax(dim=1) == labels_B).sum()
        assert output.matching is not None, "asked for"
        means = torch.stack([loss.detach(), output.matching.detach()]).double() * len(labels_B)
        sums = torch.cat([means, correct.double().unsqueeze(0)])
        progress = len(self._state.history) + (len(self._sums) + 1) / len(self._batches)
        for group in self._state.optimizer.param_groups:
            rate = learning_rate_at(self.task.config, progress, self._num_epochs, len(self._batches))
            group["lr"] = group["rate_scale"] * rate
        step_or_nothing(self._state.optimizer)
        if self.prompt.is_gated:
            # A share of attention: beyond these, what is learned is no mixture any more.
            self.prompt.gate.clamp_(0.0, 1.0)
        # They stay on the device until the epoch ends: to look at them is to wait for it.
        self._sums.append(sums)
        self._batch = None

    def end_epoch_if_due(self) -> None:
        """After an epoch's last step: report, and keep a snapshot.

        Raises:
            TuningError: The loss was not finite.
            Exception: Whatever a callback raises.
        """
        if not self._batches or len(self._sums) < len(self._batches):
            return
        report = self._report()
        self._batches, self._sums = (), []
        self._state.history.append(report)
        task = self.task
        if task.on_snapshot and report.epoch % task.snapshot_every == 0 and report.epoch < self._num_epochs:
            task.on_snapshot(self._state.to_bytes(self._identity, task.note))
        if task.on_epoch:
            task.on_epoch(report)

    def result(self) -> TuneResult:
        """The result, measured on the held-out images."""
        clock_s = time.monotonic()
        held_out, prompt = self.task.data.held_out, self.prompt.finished()
        outputs = self._predict(prompt, held_out)
        logits_BC = outputs.logits_BC
        return TuneResult(
            prompt=prompt,
            preparation=self._state.preparation,
            history=self._state.history,
            evaluation=evaluate_logits(logits_BC, held_out.labels_B),
            outputs=outputs,
            losses_B=self._balance.calibrated_losses(logits_BC, held_out.labels_B),
            balanced_scores=self._balance.balanced_scores,
            tuning_s=self._state.spent_s + time.monotonic() - clock_s,
        )

    def _order(self, epoch: int) -> tuple[Tensor, ...]:
        """The batches of an epoch, on the device."""
        labels_B, config = self._images.labels_B, self.task.config
        batches = order_epoch(config.seed, epoch, len(labels_B), config.batch_size)
        return tuple(chosen_B.to(labels_B.device) for chosen_B in batches)

    def _report(self) -> EpochReport:
        sums = torch.stack(self._sums).cpu()
        epoch = len(self._state.history) + 1
        if not bool(sums.isfinite().all()):
            config = self.task.config
            step = int((~sums.isfinite().all(dim=1)).nonzero()[0]) + 1
            raise TuningError(
                f"the loss is not finite in epoch {epoch}, step {step}; lower learning_rate "
                f"({config.learning_rate:g}) or matching_weight ({config.matching_weight:g})"
            )
        loss, matching, correct = (sums.sum(dim=0) / len(self._images.labels_B)).tolist()
        val_accuracy, val_loss = self._validate()
        return EpochReport(
            epoch=epoch,
            num_epochs=self._num_epochs,
            loss=loss,
            matching_loss=matching,
            train_accuracy=correct,
            val_accuracy=val_accuracy,
            val_loss=val_loss,
            learning_rate=self._state.optimizer.param_groups[0]["lr"],
            time_s=time.time(),
        )

    @torch.no_grad()
    def _report_probe(self, features: Features) -> EpochReport:
        """The one report of a linear probe, which takes no step."""
        data, prompt = self.task.data, self.prompt
        train = data.train
        features_BF = bare_features(self._backbone, features.train, prompt.head_layers, data.num_tiles)
        logits_BC = prompt.scores(features_BF.to(self._backbone.device)).cpu()
        val_accuracy, val_loss = self._validate()
        return EpochReport(
            epoch=1,
            num_epochs=1,
            loss=float(self._balance.cross_entropy(logits_BC, train.labels_B)),
            matching_loss=0.0,
            train_accuracy=evaluate_logits(logits_BC, train.labels_B).accuracy,
            val_accuracy=val_accuracy,
            val_loss=val_loss,
            learning_rate=0.0,
            time_s=time.time(),
        )

    def _predict(self, prompt: Prompt, split: Split) -> Outputs:
        outputs = predict(self._backbone, prompt, split.images_B3HW)
        if not bool(outputs.logits_BC.isfinite().all()):
            config = self.task.config
            raise TuningError(
                f"the scores of some image are not finite after {len(self._state.history)} epochs; lower "
                f"learning_rate ({config.learning_rate:g}) or matching_weight ({config.matching_weight:g})"
            )
        return outputs

    def _validate(self) -> tuple[float | None, float | None]:
        val = self.task.data.val
        if val is None:
            return None, None
        logits_BC = self._predict(self.prompt, val).logits_BC
        val_loss = float(self._balance.cross_entropy(logits_BC, val.labels_B))
        return evaluate_logits(logits_BC, val.labels_B).accuracy, val_loss
