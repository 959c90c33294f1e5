"""Trains a baseline as SHIP is tuned: same images in the same order, same schedule, last epoch, same measure.

Shapes: B images, C classes, D width.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ship.backbone import Backbone
from ship.baselines.adapters import Adapter, make_adapter
from ship.baselines.config import BaselineConfig
from ship.data import Split, TaskData
from ship.errors import TuningError
from ship.evaluation.accuracy import Evaluation, evaluate_logits
from ship.precision import compute_dtype
from ship.settings.config import TuneConfig, count_epochs
from ship.tuning.balance import Balance
from ship.tuning.linear_probe import LinearProbe, feature_scales
from ship.tuning.optimizer import head_rate_scale
from ship.tuning.preparation import Features, bare_features, extract_features, fit_probe
from ship.tuning.schedule import learning_rate_at, order_epoch

__all__ = ["BaselineResult", "fit_baseline"]


@dataclass(frozen=True, kw_only=True)
class BaselineResult:
    """Result of a baseline.

    Attributes:
        evaluation: On the held-out images, after the last epoch.
        val_accuracy: On the validation split; None without one.
        val_loss: Cross-entropy there; None without one.
        num_trained: Numbers that training changed, the head's included.
        losses: Mean training loss of each epoch.
        fitting_s: Seconds, the evaluation included.
    """

    evaluation: Evaluation
    val_accuracy: float | None
    val_loss: float | None
    num_trained: int
    losses: list[float]
    fitting_s: float


def fit_baseline(
    backbone: Backbone, data: TaskData, config: BaselineConfig, features: Features | None = None
) -> BaselineResult:
    """Train one baseline on one task.

    Args:
        backbone: The network to adapt, in float32; it is not changed.
        data: Images and labels.
        config: Settings.
        features: Result of ``extract_features``, if at hand: settings that are compared can share it.

    Raises:
        TuningError: The loss is not finite.
    """
    clock_s = time.monotonic()
    generator = torch.Generator().manual_seed(config.seed)
    adapter = make_adapter(backbone, config, generator)
    head = _start_head(backbone, data, config, features)
    losses = _train(
        _network(backbone, compute_dtype(config.precision, backbone.device)), adapter, head, data, config
    )
    val_accuracy, val_loss = None, None
    if data.val is not None:
        logits_BC = _predict(backbone, adapter, head, data.val)
        val_accuracy = evaluate_logits(logits_BC, data.val.labels_B).accuracy
        balance = Balance.of(TuneConfig(), data.train.labels_B, len(data.labels))
        val_loss = float(balance.cross_entropy(logits_BC, data.val.labels_B))
    logits_BC = _predict(backbone, adapter, head, data.held_out)
    return BaselineResult(
        evaluation=evaluate_logits(logits_BC, data.held_out.labels_B),
        val_accuracy=val_accuracy,
        val_loss=val_loss,
        num_trained=sum(weight.numel() for part in (adapter, head) for weight in part.parameters()),
        losses=losses,
        fitting_s=time.monotonic() - clock_s,
    )


def _network(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """The backbone to train with. On CPUs torch's fused attention is slow on the way back in bfloat16."""
    if dtype == backbone.dtype:
        return backbone
    network = backbone.cast(dtype)
    if backbone.device.type == "cpu":
        for block in network.blocks:
            block.attn.fused_attn = False
    return network


class _Head(nn.Module):
    """A linear classifier on standardised features, as SHIP's is while it is tuned."""

    mean_F: Tensor
    scale_F: Tensor

    def __init__(self, features_NF: Tensor, num_classes: int) -> None:
        super().__init__()
        mean_F, scale_F = feature_scales(features_NF)
        self.register_buffer("mean_F", mean_F.float())
        self.register_buffer("scale_F", scale_F.float())
        self.linear = nn.Linear(len(mean_F), num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def start_from(self, probe: LinearProbe) -> None:
        """Give the scores of a linear probe."""
        self.linear.weight.copy_(probe.weight_CF * self.scale_F)
        self.linear.bias.copy_(probe.bias_C + probe.weight_CF @ self.mean_F)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Class scores ``B,C``."""
        scores_BC: Tensor = self.linear((features_BF - self.mean_F) / self.scale_F)
        return scores_BC


def _start_head(
    backbone: Backbone, data: TaskData, config: BaselineConfig, features: Features | None
) -> _Head:
    features = features or extract_features(backbone, data)
    train_NF = bare_features(backbone, features.train)
    head = _Head(train_NF, len(data.labels))
    if config.head_start == "linear_probe":
        head.start_from(fit_probe(data, train_NF, TuneConfig(seed=config.seed)))
    return head.to(backbone.device)


def _train(
    network: Backbone, adapter: Adapter, head: nn.Module, data: TaskData, config: BaselineConfig
) -> list[float]:
    images_B3HW = data.train.images_B3HW.to(network.device)
    labels_B = data.train.labels_B.to(network.device)
    num_epochs = count_epochs(config, len(labels_B))
    balance = Balance.of(TuneConfig(), data.train.labels_B, len(data.labels))
    scale = head_rate_scale(config.learning_rate, network.info.width)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(adapter.parameters()), "rate_scale": 1.0},
            {"params": list(head.parameters()), "rate_scale": scale},
        ],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    losses = []
    for epoch in range(num_epochs):
        batches = order_epoch(config.seed, epoch + 1, len(labels_B), config.batch_size)
        total = torch.zeros((), device=network.device)
        for step, chosen_B in enumerate(batches):
            chosen_B = chosen_B.to(network.device)
            for group in optimizer.param_groups:
                progress = epoch + (step + 1) / len(batches)
                rate = learning_rate_at(config, progress, num_epochs, len(batches))
                group["lr"] = rate * group["rate_scale"]
            logits_BC = head(adapter(network, network.normalise(images_B3HW[chosen_B])))
            loss = balance.cross_entropy(logits_BC, labels_B[chosen_B])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(chosen_B)
        losses.append(float(total) / len(labels_B))
        if not torch.isfinite(total):
            raise TuningError(
                f"{config.method}: the loss is not finite in epoch {epoch + 1}; lower learning_rate "
                f"({config.learning_rate:g})"
            )
    return losses


@torch.no_grad()
def _predict(backbone: Backbone, adapter: Adapter, head: nn.Module, split: Split) -> Tensor:
    """Class scores on the CPU, computed in float32."""
    parts = [
        head(adapter(backbone, backbone.normalise(images_BCHW))).cpu()
        for images_BCHW in split.images_B3HW.split(backbone.info.rows_at_once)
    ]
    return torch.cat(parts)
