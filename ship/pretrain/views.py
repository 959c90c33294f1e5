"""Two views of one picture, and the loss that makes them agree.

Owns what a second view may change, framing and light, and how agreement is measured. What a network has to
keep under both is what a frozen class token is later read for: the things in a picture, not its exposure.

Shapes: B images, C = 3 colours, H and W pixels, P pairs, Z numbers that a view is compared in.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ship.pretrain.textures import uniform

__all__ = ["agreement_loss", "draw_views"]

_COVARIANCE_WEIGHT = 0.04


def draw_views(x_BCHW: Tensor, zoom: float, generator: Generator) -> Tensor:
    """Second views of pictures: a part of each, enlarged, in another light.

    Args:
        x_BCHW: Images in 0..1.
        zoom: The smallest share of a picture's side that a view shows; 1 leaves the framing alone.
        generator: Draws the part and the light.

    Returns:
        As ``x_BCHW``.
    """
    num = len(x_BCHW)
    side_B = uniform(generator, num, low=zoom, high=1.0)
    centre_B2 = uniform(generator, num, 2, low=-1.0, high=1.0) * (1.0 - side_B)[:, None]
    theta_B23 = torch.cat([torch.diag_embed(side_B[:, None].expand(-1, 2)), centre_B2[..., None]], -1)
    grid_BHW2 = functional.affine_grid(theta_B23, list(x_BCHW.shape), align_corners=False)
    view_BCHW = functional.grid_sample(x_BCHW, grid_BHW2, padding_mode="reflection", align_corners=False)
    gain_B111 = uniform(generator, num, 1, 1, 1, low=0.7, high=1.3)
    offset_B111 = uniform(generator, num, 1, 1, 1, low=-0.15, high=0.15)
    return ((view_BCHW - 0.5) * gain_B111 + 0.5 + offset_B111).clamp(0.0, 1.0)


def agreement_loss(first_PZ: Tensor, second_PZ: Tensor) -> Tensor:
    """VICReg (A. Bardes et al., ICLR 2022, equations 1 to 6; weights 25, 25 and 1, divided by 25).

    Both views of a picture are to be alike, every number is to vary over pictures, and no two together.

    Args:
        first_PZ: Projections of the pictures.
        second_PZ: Projections of their second views, in the same order.
    """
    loss = functional.mse_loss(first_PZ, second_PZ)
    for z_PZ in (first_PZ, second_PZ):
        centred_PZ = z_PZ - z_PZ.mean(0)
        covariance_ZZ = centred_PZ.T @ centred_PZ / (len(z_PZ) - 1)
        variance_Z = covariance_ZZ.diagonal()
        spread = functional.relu(1.0 - (variance_Z + 1e-4).sqrt()).mean()
        together = (covariance_ZZ.square().sum() - variance_Z.square().sum()) / len(variance_Z)
        loss = loss + spread + _COVARIANCE_WEIGHT * together
    return loss
