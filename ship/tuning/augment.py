"""Random changes of training images that keep their class, by seed, epoch and step alone.

Shapes: B pictures, T tiles of one, H and W pixels.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = ["augment"]

_SHIFT_SHARE = 1 / 16
_TONE = 0.15


def augment(images: Tensor, mode: str, seed: int, epoch: int, step: int) -> Tensor:
    """Change the images of one step.

    Args:
        images: uint8, ``B,3,H,W``, or ``B,T,3,H,W`` of pictures in tiles, whose tiles change alike.
        mode: ``TuneConfig.augment``. Quarter turns need square images; others are only flipped.
        seed: Seed of the tuning.
        epoch: From 1.
        step: From 0 in each epoch.
    """
    if mode == "none":
        return images
    generator = Generator().manual_seed(((seed * 1_000_003 + epoch) * 100_003 + step) % 2**64)
    draws_4B = torch.rand(4, len(images), generator=generator)
    images = _where(draws_4B[0] < 0.5, images.flip(-1), images)
    images = _where(draws_4B[1] < 0.5, images.flip(-2), images)
    if mode != "flips" and images.shape[-1] == images.shape[-2]:
        # With flips both ways, one quarter turn is all that is missing of the square's eight symmetries.
        images = _where(draws_4B[2] < 0.5, images.transpose(-1, -2), images)
    if mode == "light":
        images = _change_tone(_shift(images, generator), generator)
    return images


def _where(is_chosen_B: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    shape = (-1, *[1] * (images.ndim - 1))
    return torch.where(is_chosen_B.to(images.device).view(shape), changed, images)


def _shift(images: Tensor, generator: Generator) -> Tensor:
    """Shift by up to a sixteenth; what comes in at the edge is the mirrored picture."""
    height, width = images.shape[-2:]
    most = max(1, int(min(height, width) * _SHIFT_SHARE))
    shifts = torch.randint(0, 2 * most + 1, (len(images), 2), generator=generator).tolist()
    padded = F.pad(images.flatten(0, -4).float(), (most,) * 4, mode="reflect").to(images.dtype)
    padded = padded.unflatten(0, images.shape[:-3])
    moved = [
        picture[..., y : y + height, x : x + width] for picture, (y, x) in zip(padded, shifts, strict=True)
    ]
    return torch.stack(moved)


def _change_tone(images: Tensor, generator: Generator) -> Tensor:
    """Scale contrast about mid-grey and move brightness."""
    shape = (-1, *[1] * (images.ndim - 1))
    draws_2B = (2.0 * torch.rand(2, len(images), generator=generator) - 1.0).to(images.device) * _TONE
    contrast, brightness = 1.0 + draws_2B[0].view(shape), 255.0 * draws_2B[1].view(shape)
    changed = (images.float() - 127.5) * contrast + 127.5 + brightness
    return changed.round().clamp(0, 255).to(images.dtype)
