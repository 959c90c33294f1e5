"""The vision transformer that is trained, and the throw-away parts that train it.

Owns the architecture of the bundled backbone and how masked patches are predicted. Knows nothing of where
images come from or what the targets mean.

Shapes: B images, C = 3 colours, N patches, V visible patches, D width, T numbers a patch, G numbers an image,
Z numbers that views are compared in, M kinds of content.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ship.vit import Attention, Block, VisionTransformer, timm

__all__ = ["BASE_ARCHITECTURE", "MaskedPretrainer", "Predictions", "build_vit", "warm_start"]

BASE_ARCHITECTURE = "vit_tiny_patch16_224"


def build_vit(model_args: Mapping[str, Any], seed: int) -> VisionTransformer:
    """An untrained ViT with timm's own initialisation.

    Args:
        model_args: Overrides of the base architecture's arguments.
        seed: Same seed, same weights; the global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(BASE_ARCHITECTURE, pretrained=False, num_classes=0, **model_args)


def warm_start(vit: VisionTransformer) -> None:
    """Start the patch embedding as a cosine transform and the positions as waves, in place.

    A ViT first has to find out what a frequency and what a place is: with so few images that is time lost.
    Both stay trainable.
    """
    conv = vit.patch_embed.proj
    size = conv.kernel_size[0]
    with torch.no_grad():
        conv.weight.copy_(_cosine_filters(conv.out_channels, size))
        conv.bias.zero_()
        side = int(vit.patch_embed.num_patches**0.5)
        vit.pos_embed[0, 1:] = _wave_positions(side, vit.embed_dim)


def _cosine_filters(num: int, size: int) -> Tensor:
    """The ``num`` lowest frequencies ``(D,3,P,P)`` of the cosine transform: grey first, two colours sparser.

    High frequencies are weak in pictures; they are raised in proportion, so that the tokens carry them.
    """
    place_P = (torch.arange(size) + 0.5) / size
    order_P = torch.arange(size)
    wave_PP = torch.cos(math.pi * order_P[:, None] * place_P) * (2 / size) ** 0.5
    wave_PP[0] /= 2**0.5
    bank_FPP = torch.einsum("ay,bx->abyx", wave_PP, wave_PP).flatten(0, 1)
    radius_F = (order_P[:, None] ** 2 + order_P**2).sqrt().flatten()
    colours_3C = (
        torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
        / torch.tensor([[3.0], [2.0], [1.5]]).sqrt()
    )
    rank_3F = radius_F * torch.tensor([[1.0], [2.5], [2.5]]) + torch.tensor([[0.0], [0.1], [0.2]])
    chosen_D = rank_3F.flatten().argsort(stable=True)[:num]
    frequency_D = chosen_D % len(radius_F)
    gain_D = (1 + radius_F[frequency_D]) / 4
    filters = torch.einsum("dc,dyx->dcyx", colours_3C[chosen_D // len(radius_F)], bank_FPP[frequency_D])
    return torch.cat([filters * gain_D[:, None, None, None], torch.zeros(num - len(chosen_D), 3, size, size)])


def _wave_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column ``(N,D)``, spread over all dimensions by a fixed rotation."""
    y_N, x_N = (
        axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    )
    order_F = torch.arange(1, 5) * (math.pi / (2 * side))
    angles_NF = torch.cat([(axis_N[:, None] + 0.5) * order_F for axis_N in (y_N, x_N)], 1)
    waves_NF = torch.cat([angles_NF.sin(), angles_NF.cos()], 1)
    mixing_FD = torch.randn(waves_NF.shape[1], width, generator=torch.Generator().manual_seed(0))
    return waves_NF @ mixing_FD * 0.1


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of the heads for a batch.

    Attributes:
        patches_BNT: Patch targets.
        images_BG: Image targets.
        contents_BM: Logits of the drawn contents.
        compared_BZ: Projections by which views are compared.
    """

    patches_BNT: Tensor
    images_BG: Tensor
    contents_BM: Tensor
    compared_BZ: Tensor


class MaskedPretrainer(nn.Module):
    """The ViT on visible patches alone, and heads that predict the targets of everything.

    Hidden patches are left out instead of replaced (He et al., *Masked Autoencoders*, 2022), which saves
    their cost; one extra block, thrown away afterwards, fills them in from the visible ones.

    Args:
        vit: The network to train.
        num_patch_targets: T.
        num_image_targets: G.
        num_contents: M.
        num_compared: Z, numbers that views are compared in.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        num_patch_targets: int,
        num_image_targets: int,
        num_contents: int,
        num_compared: int = 256,
    ) -> None:
        super().__init__()
        width = vit.embed_dim
        self.vit = vit
        self.hidden_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, vit.patch_embed.num_patches, width) * 0.02)
        self.filler = Block(width, num_heads=vit.blocks[0].attn.num_heads, mlp_ratio=2.0, qkv_bias=True)
        self.filler_norm = nn.LayerNorm(width)
        self.patch_head = nn.Linear(width, num_patch_targets)
        # Linear on purpose: what it reads from CLS, a linear probe can read too.
        self.image_head = nn.Linear(width, num_image_targets)
        self.projector = nn.Sequential(
            nn.Linear(width, num_compared),
            nn.BatchNorm1d(num_compared),
            nn.ReLU(),
            nn.Linear(num_compared, num_compared),
        )
        self.contents_head = nn.Linear(width, num_contents)
        for module in self.modules():
            if isinstance(module, Attention):
                # torch's fused attention on CPUs takes 60% of a training step at this few tokens.
                module.fused_attn = False

    def forward(self, x_BCHW: Tensor, visible_BV: Tensor) -> Predictions:
        """Predict from the visible patches.

        Args:
            x_BCHW: Normalised images.
            visible_BV: Indices of the patches to look at.
        """
        vit = self.vit
        z_BND = vit.patch_embed(x_BCHW) + vit.pos_embed[:, 1:]
        index_BVD = visible_BV[..., None].expand(-1, -1, z_BND.shape[-1])
        cls_B1D = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(x_BCHW), -1, -1)
        z_BVD = vit.norm(vit.blocks(torch.cat([cls_B1D, z_BND.gather(1, index_BVD)], 1)))
        hidden_BND = self.hidden_token.expand(len(x_BCHW), z_BND.shape[1], -1).to(z_BVD.dtype)
        filled_BND = hidden_BND.scatter(1, index_BVD, z_BVD[:, 1:]) + self.position
        filled_BND = self.filler(torch.cat([z_BVD[:, :1], filled_BND], 1))[:, 1:]
        cls_BD = z_BVD[:, 0]
        return Predictions(
            patches_BNT=self.patch_head(self.filler_norm(filled_BND)),
            images_BG=self.image_head(cls_BD),
            contents_BM=self.contents_head(cls_BD),
            compared_BZ=self.projector(cls_BD),
        )
