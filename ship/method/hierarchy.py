"""Levels: runs of layers whose class tokens look alike, found per task (paper: section 3.1).

Shapes: L layers, N images, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.backbone import Backbone
from ship.method.model import mean_patch
from ship.method.prompts import spread_layers

__all__ = ["LayerTokens", "auto_threshold", "find_level_starts", "layer_affinity", "layer_tokens"]


@dataclass(frozen=True, kw_only=True)
class LayerTokens:
    """Tokens out of each block of the bare backbone, before the final norm, float32, on the CPU.

    Attributes:
        cls_LND: Class tokens.
        mean_ND: Mean of the patch tokens by layer, of the layers that a ``layers`` head reads.
    """

    cls_LND: Tensor
    mean_ND: dict[int, Tensor]


@torch.no_grad()
def layer_tokens(backbone: Backbone, images_NCHW: Tensor) -> LayerTokens:
    """Run the bare backbone over images.

    Args:
        backbone: The frozen network.
        images_NCHW: uint8, any number of them.
    """
    batches_LBD: list[Tensor] = []
    means: dict[int, list[Tensor]] = {layer: [] for layer in spread_layers(backbone.info.depth)}
    for images_BCHW in images_NCHW.split(backbone.info.rows_at_once):
        z_BND = backbone.embed(backbone.normalise(images_BCHW))
        cls_LBD = []
        for layer, block in enumerate(backbone.blocks):
            z_BND = block(z_BND)
            cls_LBD.append(z_BND[:, 0])
            if layer in means:
                means[layer].append(mean_patch(backbone, z_BND).float().cpu())
        batches_LBD.append(torch.stack(cls_LBD).float().cpu())
    return LayerTokens(
        cls_LND=torch.cat(batches_LBD, dim=1),
        mean_ND={layer: torch.cat(batches) for layer, batches in means.items()},
    )


def layer_affinity(f_LND: Tensor) -> Tensor:
    """Cosine between two layers' features of one image, averaged over images: ``a_LL`` in -1..1."""
    unit_LND = F.normalize(f_LND, dim=-1)
    return torch.einsum("lnd,mnd->lm", unit_LND, unit_LND) / f_LND.shape[1]


def find_level_starts(affinity_LL: Tensor | Sequence[Sequence[float]], threshold: float) -> list[int]:
    """First layer of each level, greedily.

    Layer 0 starts a level; layer i starts the next one when its affinity with the first layer of the current
    level is under the threshold.
    """
    affinity_LL = torch.as_tensor(affinity_LL)
    starts = [0]
    for layer in range(1, affinity_LL.shape[0]):
        if affinity_LL[starts[-1], layer] < threshold:
            starts.append(layer)
    return starts


def auto_threshold(affinity_LL: Tensor | Sequence[Sequence[float]]) -> float:
    """The threshold that the affinity itself suggests: the median affinity of neighbouring layers.

    A level should hold neighbours that are closer than neighbours usually are in this network on these
    images. The median follows the backbone's own scale, and the abrupt last blocks do not drag it down as
    they would a mean. On the nine matrices that the authors published it lies within 0.012 of their choice
    for eight, and gives 8 or 9 levels of 12 layers; the ninth (DTD) was published with every layer a level.
    How many levels it gives says next to nothing about a task: half of all steps lie below their median, so
    that random walks of 12 layers get 6 to 9 levels too (docs/method.md, section 2). A network of one layer
    has no neighbours and one level whatever the threshold is.
    """
    neighbours = torch.as_tensor(affinity_LL, dtype=torch.float64).diagonal(offset=1)
    if neighbours.numel() == 0:
        return 1.0
    return float(neighbours.quantile(0.5))
