"""Scores and features of images, in the forward pass that tuning uses.

Shapes: B images, C classes, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ship.backbone import Backbone, as_rows
from ship.method.model import forward
from ship.method.prompts import Prompt

__all__ = ["Outputs", "predict", "predict_logits"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What a prompt makes of images; float32, on the CPU.

    Attributes:
        logits_BC: Class scores.
        features_BD: Class token of the last layer after the final norm, the mean over tiles.
    """

    logits_BC: Tensor
    features_BD: Tensor


@torch.no_grad()
def predict(backbone: Backbone, prompt: Prompt, images_BCHW: Tensor) -> Outputs:
    """Scores and features of uint8 images; of pictures in tiles ``B,T,C,H,W`` are taken."""
    num_pictures = max(1, backbone.info.rows_at_once // prompt.num_tiles)
    logits, features = [], []
    for images in images_BCHW.split(num_pictures):
        output = forward(backbone, prompt, backbone.normalise(as_rows(images)))
        tokens_BTD = backbone.norm(output.cls_LBD[-1]).unflatten(0, (-1, prompt.num_tiles))
        logits.append(output.logits_BC.float().cpu())
        features.append(tokens_BTD.float().mean(dim=1).cpu())
    return Outputs(logits_BC=torch.cat(logits), features_BD=torch.cat(features))


def predict_logits(backbone: Backbone, prompt: Prompt, images_BCHW: Tensor) -> Tensor:
    """Class scores of uint8 images, on the CPU; see ``predict``."""
    return predict(backbone, prompt, images_BCHW).logits_BC
