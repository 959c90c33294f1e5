"""Things that tests of several parts need: a small backbone on disk, and pictures of stripes."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from ship.vit import VisionTransformer, timm


def write_backbone(folder: Path, seed: int = 0, **args: object) -> VisionTransformer:
    """A backbone in timm's own layout, 4 blocks of width 32."""
    model_args = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, **args}
    torch.manual_seed(seed)
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **model_args)
    # Values that timm starts at zero or one would hide a part that is left out.
    with torch.no_grad():
        for weight in vit.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    folder.mkdir(parents=True)
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "model_args": model_args,
        "pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(vit.state_dict(), folder / "model.safetensors")
    return vit.eval()


def write_stripes(folder: Path, num_train: int = 12, num_test: int = 6, num_classes: int = 2) -> None:
    """An ImageFolder of noisy stripes; classes differ in direction and width, and can be told apart."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for split, num_images in (("train", num_train), ("test", num_test)):
        for label in range(num_classes):
            target = folder / split / f"direction-{label}"
            target.mkdir(parents=True)
            angle = np.pi * label / num_classes
            for number in range(num_images):
                place = np.cos(angle) * x + np.sin(angle) * y
                wave = np.sin(place * (0.5 + 0.5 * label) + rng.uniform(0, 6.28))
                noisy = 128 + 90 * wave[..., None] + rng.normal(0, 20, (32, 32, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target / f"{number}.png")
