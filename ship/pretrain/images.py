"""Pictures that nobody took: the whole training set of the bundled backbone, drawn as it is needed.

Owns how textures and shapes are put together, coloured and degraded. Licence-free, because nothing in it
comes from anywhere. A batch is a pure function of its size and seed, so training can resume without a
stored state. Everything is drawn on the default device.

Shapes: B images, C = 3 colours, H and W pixels. Images are float32 in 0..1.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ship.pretrain.silhouettes import draw_contours, draw_flaws, draw_fractals, draw_strokes
from ship.pretrain.textures import draw_textures, make_generator, uniform

__all__ = ["draw_images"]

# What the masks show, by share. Strokes and fractals share their background with surfaces and scenes.
_SHARES = {"strokes": 0.28, "fractals": 0.16, "contours": 0.24, "surfaces": 0.32}
_COARSE_SIZES = (8, 10, 14, 20, 28)


def draw_images(num: int, size: int, seed: int) -> Tensor:
    """Draw a batch.

    Args:
        num: How many images.
        size: Height and width in pixels.
        seed: Same seed, same images, bit for bit (on one machine and device).

    Returns:
        ``(B,3,H,W)`` in 0..1, kinds in random order.
    """
    generator = make_generator(seed)
    counts = {kind: math.ceil(num * share) for kind, share in _SHARES.items()}
    total = sum(counts.values())
    masks_KBHW = [_draw_masks(counts, size, generator, first=layer == 0) for layer in range(3)]
    canvas_BCHW = _paint(draw_textures(total, size, generator), generator, contrast=1.0)
    for mask_BHW in masks_KBHW:
        paint_BCHW = _paint(draw_textures(total, size, generator), generator, contrast=0.6)
        canvas_BCHW = torch.lerp(canvas_BCHW, paint_BCHW, mask_BHW[:, None])
    canvas_BCHW = canvas_BCHW[torch.randperm(total, generator=generator)[:num]]
    return _degrade(_mirror(canvas_BCHW, generator), generator)


def _draw_masks(counts: dict[str, int], size: int, generator: Generator, *, first: bool) -> Tensor:
    """One layer for the whole batch: the kind's own mask first, then sparser company."""
    if first:
        return torch.cat(
            [
                draw_strokes(counts["strokes"], size, generator),
                draw_fractals(counts["fractals"], size, generator),
                draw_contours(counts["contours"], size, generator),
                _thin_out(draw_flaws(counts["surfaces"], size, generator), 0.6, generator),
            ]
        )
    return torch.cat(
        [
            _thin_out(draw_strokes(counts["strokes"], size, generator, 8), 0.25, generator),
            _thin_out(draw_contours(counts["fractals"], size, generator), 0.15, generator),
            _thin_out(draw_contours(counts["contours"], size, generator), 0.75, generator),
            _thin_out(draw_flaws(counts["surfaces"], size, generator), 0.2, generator),
        ]
    )


def _thin_out(mask_BHW: Tensor, share: float, generator: Generator) -> Tensor:
    return mask_BHW * (uniform(generator, len(mask_BHW), 1, 1) < share)


def _paint(field_BHW: Tensor, generator: Generator, contrast: float) -> Tensor:
    """Colour a field between two tones, grey in half of the images."""
    num = len(field_BHW)
    low_BC11, high_BC11 = (uniform(generator, num, 3, 1, 1) for _ in range(2))
    grey_B111 = uniform(generator, num, 1, 1, 1) < 0.5
    low_BC11 = torch.where(grey_B111, low_BC11[:, :1], low_BC11)
    high_BC11 = torch.where(grey_B111, high_BC11[:, :1], high_BC11)
    strength_B111 = uniform(generator, num, 1, 1, 1) * contrast
    return low_BC11 + (high_BC11 - low_BC11) * strength_B111 * field_BHW[:, None]


def _mirror(x_BCHW: Tensor, generator: Generator) -> Tensor:
    """A tenth of the images become symmetric: faces, insects and many made things are."""
    chosen_B111 = uniform(generator, len(x_BCHW), 1, 1, 1) < 0.1
    half = x_BCHW.shape[-1] // 2
    folded_BCHW = torch.cat([x_BCHW[..., :half], x_BCHW[..., : x_BCHW.shape[-1] - half].flip(-1)], -1)
    return torch.where(chosen_B111, folded_BCHW, x_BCHW)


def _degrade(x_BCHW: Tensor, generator: Generator) -> Tensor:
    """What cameras and thumbnails do: contrast, noise; half of the images lose most of their pixels."""
    num, _, size, _ = x_BCHW.shape
    order_B = torch.randperm(num, generator=generator)
    share = num // 10
    for i, coarse in enumerate(_COARSE_SIZES):
        part_B = order_B[i * share : (i + 1) * share]
        if coarse < size and len(part_B):
            small = functional.interpolate(x_BCHW[part_B], (coarse, coarse), mode="area")
            x_BCHW[part_B] = functional.interpolate(small, (size, size), mode="bicubic", align_corners=False)
    sigma_B111 = uniform(generator, num, 1, 1, 1) ** 3 * 0.12
    x_BCHW = x_BCHW + torch.randn(num, 1, size, size, generator=generator) * sigma_B111
    gamma_B111 = torch.exp(uniform(generator, num, 1, 1, 1, low=-0.4, high=0.4))
    return x_BCHW.clamp(1e-4, 1).pow(gamma_B111)
