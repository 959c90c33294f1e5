"""Levels: runs of layers whose class tokens look alike, found per task (paper: section 3.1).

Shapes: L layers, N images, D width.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ship.backbone import Backbone

__all__ = ["auto_threshold", "class_token_features", "find_level_starts", "layer_affinity"]


@torch.no_grad()
def class_token_features(backbone: Backbone, batches_BCHW: Iterable[Tensor]) -> Tensor:
    """The class token after each block of the bare backbone, before the final norm.

    Args:
        backbone: The frozen network.
        batches_BCHW: uint8 images, batch by batch.

    Returns:
        ``f_LND``, float32, on the CPU.
    """
    per_batch = []
    for images_BCHW in batches_BCHW:
        z_BND = backbone.embed(backbone.normalise(images_BCHW))
        cls_LBD = []
        for block in backbone.blocks:
            z_BND = block(z_BND)
            cls_LBD.append(z_BND[:, 0])
        per_batch.append(torch.stack(cls_LBD).float().cpu())
    return torch.cat(per_batch, dim=1)


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
    A network of one layer has no neighbours and one level whatever the threshold is.
    """
    neighbours = torch.as_tensor(affinity_LL, dtype=torch.float64).diagonal(offset=1)
    if neighbours.numel() == 0:
        return 1.0
    return float(neighbours.quantile(0.5))
