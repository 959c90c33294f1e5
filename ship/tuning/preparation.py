"""Preparation of a tuning: levels, prototypes, the linear probe, the initial prompt.

All of it comes from one pass of the bare backbone over the training images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.data import TaskData
from ship.errors import ConfigError
from ship.evaluation.accuracy import evaluate_logits
from ship.method.hierarchy import auto_threshold, class_token_features, find_level_starts, layer_affinity
from ship.method.prompts import Prompt
from ship.method.prototypes import find_prototypes
from ship.settings.config import TuneConfig
from ship.tuning.linear_probe import LinearProbe, fit_linear_probe

__all__ = ["Features", "Preparation", "extract_features", "fit_probe", "prepare"]

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Findings about a task that tuning starts from and that its record keeps.

    Attributes:
        affinity: ``L,L``, cosine between layers.
        threshold: The number that was used, also where ``auto`` chose it.
        probe_accuracy: Accuracy of the linear probe on the held-out images.
    """

    affinity: list[list[float]]
    threshold: float
    probe_accuracy: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Class tokens after each block of the bare backbone, float32, on the CPU.

    Attributes:
        train_LND: Features of the training images.
        held_out_ND: Features of the held-out images, after the last block.
    """

    train_LND: Tensor
    held_out_ND: Tensor


def extract_features(backbone: Backbone, data: TaskData) -> Features:
    """Run the bare backbone over a task's images. Settings play no part: candidates may share the result."""
    return Features(
        train_LND=class_token_features(backbone, data.train.images_B3HW.split(_BATCH)),
        held_out_ND=class_token_features(backbone, data.held_out.images_B3HW.split(_BATCH))[-1],
    )


def prepare(
    backbone: Backbone, data: TaskData, config: TuneConfig, features: Features
) -> tuple[Prompt, Preparation]:
    """Find levels and prototypes, fit the linear probe, draw the initial prompt.

    Raises:
        ConfigError: The settings do not fit the backbone or the data.
    """
    _check_fit(backbone, data, config)
    generator = torch.Generator().manual_seed(config.seed)
    train_LND = features.train_LND
    chosen_N = _choose(train_LND.shape[1], config.max_hierarchy_images, generator)
    affinity_LL = layer_affinity(train_LND[:, chosen_N])
    threshold = auto_threshold(affinity_LL) if config.threshold == "auto" else float(config.threshold)
    prompt = Prompt(
        config,
        level_starts=find_level_starts(affinity_LL, threshold),
        depth=backbone.info.depth,
        prototypes_RD=find_prototypes(train_LND[-1, chosen_N], config.num_prototypes, config.seed),
        num_classes=len(data.labels),
    )
    prompt.initialise(generator)
    probe = fit_probe(backbone, train_LND[-1], data.train.labels_B, config.seed)
    if config.start == "gated":
        _copy_head(prompt, probe)
    logits_BC = probe.logits(_normed(backbone, features.held_out_ND))
    preparation = Preparation(
        affinity=affinity_LL.tolist(),
        threshold=threshold,
        probe_accuracy=evaluate_logits(logits_BC, data.held_out.labels_B).accuracy,
    )
    return prompt.to(backbone.device), preparation


def _check_fit(backbone: Backbone, data: TaskData, config: TuneConfig) -> None:
    num_tokens = backbone.info.num_tokens
    if config.num_attribute > num_tokens:
        raise ConfigError(
            f"num_attribute: expected at most {num_tokens}, the tokens of backbone {backbone.name!r} at "
            f"{backbone.image_size[0]}x{backbone.image_size[1]}, got {config.num_attribute}"
        )
    if config.patience and data.val is None:
        raise ConfigError(
            f"patience: {config.patience} epochs without a lower validation loss end the tuning, but the "
            "data has no validation split; add one, or set patience to 0"
        )


def _choose(num_images: int, limit: int, generator: torch.Generator) -> Tensor:
    """At most ``limit`` images; all of them in order where there are no more."""
    if num_images <= limit:
        return torch.arange(num_images)
    return torch.randperm(num_images, generator=generator)[:limit].sort().values


@torch.no_grad()
def _normed(backbone: Backbone, features_ND: Tensor) -> Tensor:
    normed_ND: Tensor = backbone.norm(features_ND.to(backbone.device)).float().cpu()
    return normed_ND


def fit_probe(backbone: Backbone, features_ND: Tensor, labels_N: Tensor, seed: int) -> LinearProbe:
    """The linear probe on class tokens out of the last block, which get the backbone's final norm first."""
    return fit_linear_probe(_normed(backbone, features_ND), labels_N, seed)


@torch.no_grad()
def _copy_head(prompt: Prompt, probe: LinearProbe) -> None:
    prompt.head.weight.copy_(probe.weight_CD)
    prompt.head.bias.copy_(probe.bias_C)
