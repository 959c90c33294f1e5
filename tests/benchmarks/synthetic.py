"""Backbones, prompts and data sets with random values, on which speed does not depend."""

import copy
import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ship.backbone import Backbone, load_backbone
from ship.data import Split, TaskData
from ship.linear import FrozenLinear
from ship.method.prompts import Prompt, spread_layers
from ship.settings.config import TuneConfig
from tests.factories import write_backbone

__all__ = ["VIT_B", "as_of_timm", "default_k", "find_backbone", "make_data", "make_images", "make_prompt"]

VIT_B = "vit_base_patch16_224"
_HIERARCHY = Path(__file__).parents[1] / "golden" / "hierarchy.json"
NUM_PROTOTYPES = 200


def find_backbone(name: str, device: torch.device) -> Backbone:
    """``tiny``, or a backbone of ``load_backbone`` with random weights where trained ones are not local."""
    if name == "tiny":
        with tempfile.TemporaryDirectory() as folder:
            write_backbone(Path(folder) / "tiny")
            return load_backbone(str(Path(folder) / "tiny"), device)
    return load_backbone(name, device, pretrained=False)


def as_of_timm(backbone: Backbone) -> Backbone:
    """The backbone as timm makes it, with PyTorch's own linear layers: what others are measured with."""
    own = copy.copy(backbone)
    own.vit = copy.deepcopy(backbone.vit)
    for module in own.vit.modules():
        if type(module) is FrozenLinear:
            module.__class__ = nn.Linear
    return own


def default_k(name: str) -> int:
    """Independent prompt tokens a level: 50 is in the middle of the published range for a ViT-B."""
    return 50 if name == VIT_B else 10


def make_prompt(
    backbone: Backbone, seed: int, num_independent: int, num_classes: int | None = None, **settings: object
) -> Prompt:
    """A prompt with the levels of a published task and random values.

    Args:
        backbone: It gives depth and width.
        seed: Of the values, the levels and the number of classes.
        num_independent: K.
        num_classes: Classes; 2 to 20 unless given.
        settings: Settings in place of the published start with attribute tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    depth, width = backbone.info.depth, backbone.info.width
    defaults = {"num_attribute": min(10, backbone.info.num_tokens), "start": "published"}
    config = TuneConfig(num_independent=num_independent, **{**defaults, **settings})
    prompt = Prompt(
        config,
        level_starts=_level_starts(depth, seed),
        depth=depth,
        prototypes_RD=torch.randn(NUM_PROTOTYPES if config.num_attribute else 0, width, generator=generator),
        num_classes=num_classes or 2 + seed % 19,
        head_layers=spread_layers(depth) if config.head == "layers" else (),
    )
    prompt.initialise(generator)
    with torch.no_grad():
        for up in prompt.low_rank.up.values() if prompt.low_rank else ():
            up.normal_(std=0.02, generator=generator)
    return prompt.to(backbone.device)


def make_images(backbone: Backbone, num_images: int, seed: int = 0) -> Tensor:
    """Images of noise, uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (num_images, 3, *backbone.image_size), generator=generator, dtype=torch.uint8
    )


def make_data(backbone: Backbone, num_images: int, seed: int, num_classes: int = 10) -> TaskData:
    """A task of noise."""

    def split(number: int, split_seed: int) -> Split:
        return Split(
            images_B3HW=make_images(backbone, number, split_seed),
            labels_B=torch.arange(number) % num_classes,
            paths=tuple(f"{index}.png" for index in range(number)),
        )

    return TaskData(
        labels=tuple(f"class-{index}" for index in range(num_classes)),
        train=split(num_images, seed),
        val=None,
        test=split(num_classes, seed + 1_000_000),
        fingerprint=f"{seed:064x}",
    )


def _level_starts(depth: int, seed: int) -> list[int]:
    cases = json.loads(_HIERARCHY.read_text())["cases"]
    fitting = sorted({tuple(case["level_starts"]) for case in cases if len(case["affinity"]) == depth})
    return list(fitting[seed % len(fitting)]) if fitting else list(range(0, depth, 2))
