"""Adapters as PEFT saves them, of a small timm model on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ship.backbone import Backbone, load_backbone
from ship.vit import timm
from tests.factories import write_backbone

NUM_CLASSES = 3


def make_backbone(folder: Path, **args: object) -> Backbone:
    """A backbone of four blocks, loaded from disk."""
    write_backbone(folder, **args)
    return load_backbone(str(folder))


def make_model(backbone: Backbone, num_classes: int = NUM_CLASSES, seed: int = 5) -> nn.Module:
    """The timm model of a backbone with a head of random weights."""
    torch.manual_seed(seed)
    info = backbone.info
    model = timm.create_model(info.architecture, num_classes=num_classes, **info.model_args)
    head = {f"head.{name}": weight for name, weight in model.head.state_dict().items()}
    model.load_state_dict({**backbone.vit.state_dict(), **head})
    return model.eval()


def save_adapter(backbone: Backbone, folder: Path, seed: int = 0, **settings: Any) -> nn.Module:
    """Save a LoRA adapter whose both factors are random; returns PEFT's model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        **{
            "r": 4,
            "lora_alpha": 6,
            "target_modules": ["qkv"],
            "modules_to_save": ["head"],
            "init_lora_weights": False,
            **settings,
        }
    )
    model = get_peft_model(make_model(backbone, seed=seed), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.normal_(std=0.1)
    model.save_pretrained(str(folder))
    return model.eval()


def load_adapter(backbone: Backbone, folder: Path, num_classes: int = NUM_CLASSES) -> nn.Module:
    """PEFT's own model of a folder, on the timm model of a backbone."""
    from peft import PeftModel

    return PeftModel.from_pretrained(make_model(backbone, num_classes), str(folder)).eval()


@torch.no_grad()
def peft_scores(model: nn.Module, backbone: Backbone, images_B3HW: Tensor) -> Tensor:
    """Scores ``B,C`` by PEFT."""
    scores: Tensor = model(backbone.normalise(images_B3HW))
    return scores


def change_config(folder: Path, **changes: object) -> None:
    """Change settings of a saved adapter."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change tensors of a saved adapter."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(dict(tensors), path)
