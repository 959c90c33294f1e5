"""A backbone of four tiny blocks and pictures of stripes: enough for every fact, tuned in a second."""

import torch

from ship.backbone import Backbone, BackboneInfo
from ship.data import Split, TaskData
from ship.vit import VisionTransformer

__all__ = ["DEPTH", "HEADS", "PIXELS", "QUICK", "WIDTH", "draw_stripes", "make_backbone", "make_data"]

DEPTH, WIDTH, HEADS, PIXELS = 4, 32, 2, 32

# Settings that tune in a second.
QUICK = {
    "epochs": 4,
    "batch_size": 8,
    "num_independent": 3,
    "num_shared": 2,
    "num_attribute": 4,
    "num_prototypes": 8,
    "top_k": 4,
    "threshold": 0.9,
}


def make_backbone(seed: int = 0, depth: int = DEPTH, **args: object) -> Backbone:
    torch.manual_seed(seed)
    vit = VisionTransformer(
        img_size=PIXELS,
        patch_size=8,
        embed_dim=WIDTH,
        depth=depth,
        num_heads=HEADS,
        num_classes=0,
        **args,
    )
    # Random weights of timm's start are so small that layers hardly differ; these do.
    for block in vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.15)
        torch.nn.init.normal_(block.mlp.fc2.weight, std=0.1)
    info = BackboneInfo(
        name="tiny",
        architecture="",
        model_args={},
        image_size=(PIXELS, PIXELS),
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        depth=depth,
        width=WIDTH,
        num_heads=HEADS,
        num_tokens=vit.patch_embed.num_patches + vit.num_prefix_tokens,
        num_params=sum(weight.numel() for weight in vit.parameters()),
        fingerprint=f"{seed:064x}",
    )
    return Backbone(vit, info)


def draw_stripes(num_images: int, num_classes: int, seed: int) -> Split:
    """Noisy stripes; the class is their direction."""
    generator = torch.Generator().manual_seed(seed)
    labels_B = torch.arange(num_images) % num_classes
    angle_B = labels_B * torch.pi / num_classes
    y, x = torch.meshgrid(torch.arange(PIXELS), torch.arange(PIXELS), indexing="ij")
    phase_B = torch.rand(num_images, generator=generator) * 6.28
    wave = torch.sin(
        (angle_B.cos()[:, None, None] * x + angle_B.sin()[:, None, None] * y) * 0.8 + phase_B[:, None, None]
    )
    noise = torch.randn(num_images, 3, PIXELS, PIXELS, generator=generator) * 40
    images = (128 + 90 * wave[:, None] + noise).clamp(0, 255).to(torch.uint8)
    return Split(images_B3HW=images, labels_B=labels_B, paths=tuple(f"{i}.png" for i in range(num_images)))


def make_data(num_train: int = 24, num_classes: int = 3, num_val: int = 0, seed: int = 0) -> TaskData:
    return TaskData(
        labels=tuple(f"class-{i}" for i in range(num_classes)),
        train=draw_stripes(num_train, num_classes, seed),
        val=draw_stripes(num_val, num_classes, seed + 1) if num_val else None,
        test=draw_stripes(18, num_classes, seed + 2),
        fingerprint=f"{seed:064x}",
    )
