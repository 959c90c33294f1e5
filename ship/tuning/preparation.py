"""Preparation of a tuning: levels, prototypes, the linear probe, the initial prompt.

All of it comes from one pass of the bare backbone over the training images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ship.backbone import Backbone, as_rows
from ship.data import TaskData
from ship.errors import ConfigError
from ship.evaluation.accuracy import evaluate_logits
from ship.method.hierarchy import (
    LayerTokens,
    auto_threshold,
    find_level_starts,
    layer_affinity,
    layer_tokens,
)
from ship.method.model import head_features
from ship.method.prompts import Prompt, count_attribute_groups, spread_layers
from ship.method.prototypes import find_prototypes
from ship.settings.config import TuneConfig
from ship.tuning.balance import Balance
from ship.tuning.learning import measure_learning_curve
from ship.tuning.linear_probe import LinearProbe, fit_linear_probe

__all__ = [
    "Features",
    "Preparation",
    "bare_features",
    "check_fit",
    "extract_features",
    "fit_probe",
    "prepare",
]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Findings about a task that tuning starts from and that its record keeps.

    Attributes:
        affinity: ``L,L``, cosine between layers.
        threshold: The number that was used, also where ``auto`` chose it.
        probe_accuracy: Accuracy of the linear probe on the held-out images.
        probe_balanced_accuracy: Its mean recall of the classes that have held-out images.
        probe_right: The held-out images that it gets right, see ``Evaluation``; empty in snapshots of earlier
            versions.
        learning_curve: Number of training images and held-out accuracy of the linear probe on a quarter, half
            and all of them; empty where a class has fewer than four, and in snapshots of earlier versions.
        probe_logits_BC: Its class scores of the held-out images, on the CPU; None in snapshots of earlier
            versions.
    """

    affinity: list[list[float]]
    threshold: float
    probe_accuracy: float
    probe_balanced_accuracy: float
    probe_right: str = ""
    learning_curve: list[list[float]] = field(default_factory=list)
    probe_logits_BC: Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Tokens out of each block of the bare backbone.

    Attributes:
        train: Of the training images.
        held_out: Of the held-out images.
        probes: Linear probes fitted so far, by what tells them apart, each with its learning curve.
    """

    train: LayerTokens
    held_out: LayerTokens
    probes: dict[tuple[object, ...], tuple[LinearProbe, list[list[float]]]] = field(default_factory=dict)


def extract_features(backbone: Backbone, data: TaskData) -> Features:
    """Run the bare backbone over a task's images. Settings play no part: candidates may share the result."""
    return Features(
        train=layer_tokens(backbone, as_rows(data.train.images_B3HW)),
        held_out=layer_tokens(backbone, as_rows(data.held_out.images_B3HW)),
    )


def prepare(
    backbone: Backbone, data: TaskData, config: TuneConfig, features: Features
) -> tuple[Prompt, Preparation]:
    """Find levels and prototypes, fit the linear probe, draw the initial prompt.

    Raises:
        ConfigError: The settings do not fit the backbone or the data.
    """
    check_fit(backbone, data, config)
    generator = torch.Generator().manual_seed(config.seed)
    cls_LND = features.train.cls_LND
    chosen_N = _choose(cls_LND.shape[1], config.max_hierarchy_images, generator)
    affinity_LL = layer_affinity(cls_LND[:, chosen_N])
    threshold = auto_threshold(affinity_LL) if config.threshold == "auto" else float(config.threshold)
    level_starts = find_level_starts(affinity_LL, threshold)
    has_attribute = count_attribute_groups(config, len(level_starts)) > 0
    num_prototypes = config.num_prototypes if has_attribute else 0
    prompt = Prompt(
        config,
        level_starts=level_starts,
        depth=backbone.info.depth,
        prototypes_RD=find_prototypes(cls_LND[-1, chosen_N], num_prototypes, config.seed),
        num_classes=len(data.labels),
        head_layers=spread_layers(backbone.info.depth) if config.head == "layers" else (),
        num_tiles=data.num_tiles,
    )
    prompt.initialise(generator)
    held_out_BF = bare_features(backbone, features.held_out, prompt.head_layers, data.num_tiles)
    key = (prompt.head_layers, config.balance, config.seed)
    if key not in features.probes:
        train_NF = bare_features(backbone, features.train, prompt.head_layers, data.num_tiles)
        fitted = fit_probe(data, train_NF, config)
        features.probes[key] = fitted, measure_learning_curve(data, config, fitted, train_NF, held_out_BF)
    probe, curve = features.probes[key]
    if config.start == "gated" or config.kind == "probe":
        _start_head(prompt, probe)
    logits_BC = probe.logits(held_out_BF)
    evaluation = evaluate_logits(logits_BC, data.held_out.labels_B)
    preparation = Preparation(
        affinity=affinity_LL.tolist(),
        threshold=threshold,
        probe_accuracy=evaluation.accuracy,
        probe_balanced_accuracy=evaluation.balanced_accuracy,
        probe_right=evaluation.right,
        learning_curve=curve,
        probe_logits_BC=logits_BC,
    )
    return prompt.to(backbone.device), preparation


def check_fit(backbone: Backbone, data: TaskData, config: TuneConfig) -> None:
    """Refuse settings that do not fit the backbone or the data.

    Raises:
        ConfigError: Says which, and what would.
    """
    num_tokens = backbone.info.num_tokens
    if config.has_prompts and config.num_attribute > num_tokens:
        raise ConfigError(
            f"num_attribute: expected at most {num_tokens}, the tokens of backbone {backbone.name!r} at "
            f"{backbone.image_size[0]}x{backbone.image_size[1]}, got {config.num_attribute}"
        )
    in_mlp = [name for name in config.low_rank_targets if name.startswith("fc")]
    if in_mlp and not backbone.has_plain_mlp:
        raise ConfigError(
            f"low_rank_on: the MLPs of backbone {backbone.name!r} cannot be updated ({', '.join(in_mlp)}): "
            "expected timm's Mlp, four times as wide as the tokens; take qkv and proj"
        )
    if config.patience and data.val is None:
        raise ConfigError(
            f"patience: {config.patience} epochs without a lower validation loss end the tuning, but the "
            "data has no validation split; add one, or set patience to 0"
        )
    if config.patience and data.test is None:
        raise ConfigError(
            f"patience: {config.patience} epochs without a lower validation loss end the tuning, but the "
            "result is measured on the same validation images; add a test split, or set patience to 0"
        )


def _choose(num_images: int, limit: int, generator: torch.Generator) -> Tensor:
    """At most ``limit`` images; all of them in order where there are no more."""
    if num_images <= limit:
        return torch.arange(num_images)
    return torch.randperm(num_images, generator=generator)[:limit].sort().values


@torch.no_grad()
def bare_features(
    backbone: Backbone, tokens: LayerTokens, head_layers: Sequence[int] = (), num_tiles: int = 1
) -> Tensor:
    """Features ``N,F`` that a head reads of the bare backbone, float32, on the CPU.

    Args:
        backbone: Its final norm is applied.
        tokens: Tokens of the images, or of their tiles one after another.
        head_layers: Layers before the last that the head reads.
        num_tiles: Tiles of a picture.
    """
    read = [part for x in head_layers for part in (tokens.cls_LND[x], tokens.mean_ND[x])]
    on_device = [part.to(backbone.device) for part in (*read, tokens.cls_LND[-1])]
    return head_features(backbone, on_device, num_tiles).float().cpu()


def fit_probe(data: TaskData, train_NF: Tensor, config: TuneConfig | None = None) -> LinearProbe:
    """The linear probe on the features that a head reads.

    Args:
        data: Gives the training labels.
        train_NF: Result of ``bare_features`` for the training images.
        config: Gives balance and seed; by default those of ``TuneConfig``.
    """
    config = config or TuneConfig()
    labels_N, num_classes = data.train.labels_B, len(data.labels)
    return fit_linear_probe(
        train_NF,
        labels_N,
        num_classes=num_classes,
        balance=Balance.of(config, labels_N, num_classes),
        seed=config.seed,
    )


@torch.no_grad()
def _start_head(prompt: Prompt, probe: LinearProbe) -> None:
    prompt.head.weight.copy_(probe.weight_CF)
    prompt.head.bias.copy_(probe.bias_C)
    prompt.standardise(probe.mean_F, probe.scale_F)
