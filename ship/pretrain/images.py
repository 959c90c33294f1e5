"""Synthetic pictures: the whole training set of the bundled backbone, drawn as it is needed.

Owns how textures and shapes are put together, coloured and degraded, and says what is in each picture.
Licence-free, because nothing in it comes from anywhere. A batch is a pure function of its size and seed, so
training can resume without a stored state. Everything is drawn on the default device.

Shapes: B images, C = 3 colours, H and W pixels, M kinds of content. Images are float32 in 0..1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ship.pretrain.silhouettes import FLAWS, draw_contours, draw_flaws, draw_fractals, draw_strokes
from ship.pretrain.textures import TEXTURES, draw_textures, make_generator, uniform

__all__ = ["CONTENTS", "Drawing", "draw_images"]

_THINGS = ("stroke", "fractal", "contour", *FLAWS)
CONTENTS = (*_THINGS, *(texture.__name__ for texture in TEXTURES))

# Contents of the masks, by share. Strokes and fractals share their background with surfaces and scenes.
_SHARES = {"strokes": 0.28, "fractals": 0.16, "contours": 0.24, "surfaces": 0.32}
_COARSE_SIZES = (8, 10, 14, 20, 28)
# Of 0..1: a thing counts as seen if it changes a pixel by more, a texture if its pixels stray by more.
SEEN_CHANGE, _SEEN_SPREAD = 0.1, 0.03


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A batch of pictures.

    Attributes:
        x_BCHW: Images in 0..1.
        contents_BM: 1 for each of ``CONTENTS`` that is in the picture, else 0. Several may be. A thing that
            a later one covers still counts.
    """

    x_BCHW: Tensor
    contents_BM: Tensor


def draw_images(num: int, size: int, seed: int, *, seen_change: float = SEEN_CHANGE) -> Drawing:
    """Draw a batch.

    Args:
        num: Number of images.
        size: Height and width in pixels.
        seed: Same seed, same images, bit for bit (on one machine and device).
        seen_change: Least change of a pixel, of 0..1, for which a thing counts as seen.

    Returns:
        Images, kinds in random order, and what is in them.
    """
    generator = make_generator(seed)
    counts = {kind: math.ceil(num * share) for kind, share in _SHARES.items()}
    total = sum(counts.values())
    layers = [_draw_things(counts, size, generator, first=layer == 0) for layer in range(3)]
    field_BHW, texture_B = draw_textures(total, size, generator)
    canvas_BCHW = _paint(field_BHW, generator, contrast=1.0)
    is_seen_B = canvas_BCHW.mean(1).flatten(1).std(1) > _SEEN_SPREAD
    contents_BM = _mark(len(_THINGS) + texture_B, is_seen_B)
    for mask_BHW, thing_B in layers:
        field_BHW, _ = draw_textures(total, size, generator)
        below_BCHW = canvas_BCHW
        canvas_BCHW = torch.lerp(below_BCHW, _paint(field_BHW, generator, contrast=0.6), mask_BHW[:, None])
        is_seen_B = (canvas_BCHW - below_BCHW).abs().flatten(1).amax(1) > seen_change
        contents_BM = torch.maximum(contents_BM, _mark(thing_B, is_seen_B))
    order_B = torch.randperm(total, generator=generator)[:num]
    x_BCHW = _degrade(_mirror(canvas_BCHW[order_B], generator), generator)
    return Drawing(x_BCHW=x_BCHW, contents_BM=contents_BM[order_B])


def _draw_things(
    counts: dict[str, int], size: int, generator: Generator, *, first: bool
) -> tuple[Tensor, Tensor]:
    """One layer for the whole batch: the kind's own mask first, then sparser company.

    Returns:
        Masks ``(B,H,W)``, and the place in ``_THINGS`` of what each shows ``(B,)``.
    """
    strokes, fractals, contours, surfaces = counts.values()
    if first:
        masks = [
            draw_strokes(strokes, size, generator),
            draw_fractals(fractals, size, generator),
            draw_contours(contours, size, generator),
        ]
        things = ("stroke", "fractal", "contour")
        share = 0.6
    else:
        masks = [
            _thin_out(draw_strokes(strokes, size, generator, 8), 0.25, generator),
            _thin_out(draw_contours(fractals, size, generator), 0.15, generator),
            _thin_out(draw_contours(contours, size, generator), 0.75, generator),
        ]
        things = ("stroke", "contour", "contour")
        share = 0.2
    flaws_BHW, flaw_B = draw_flaws(surfaces, size, generator)
    masks.append(_thin_out(flaws_BHW, share, generator))
    thing_B = torch.tensor([_THINGS.index(thing) for thing in things]).repeat_interleave(
        torch.tensor([strokes, fractals, contours])
    )
    return torch.cat(masks), torch.cat([thing_B, _THINGS.index(FLAWS[0]) + flaw_B])


def _mark(content_B: Tensor, is_seen_B: Tensor) -> Tensor:
    """``(B,M)``, 1 for each picture's content, if it is seen."""
    return functional.one_hot(content_B, len(CONTENTS)) * is_seen_B[:, None].float()


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
    """Degradations by cameras and thumbnails: contrast, noise, and few pixels in half of the images."""
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
