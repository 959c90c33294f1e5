"""Small classification problems on real pictures, to probe a backbone with.

Owns the data of the probe. All of it comes with scikit-learn and scikit-image; none was seen in
pre-training. Test pictures are disjoint from the training pictures: other files, or the other half of a
photograph.

Shapes: B images, H and W pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from ship.errors import DataError

__all__ = ["TASKS", "Images", "Labels", "ProbeTask"]

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """One classification problem, images grey in 0..1 and of any one size."""

    train_BHW: Images
    train_labels_B: Labels
    test_BHW: Images
    test_labels_B: Labels


def digits(num_train: int, seed: int) -> ProbeTask:
    """Handwritten digits of 8x8 pixels, ten classes; 900 held out."""
    images_BHW, labels_B = load_digits(return_X_y=True)
    images_BHW = (images_BHW.reshape(-1, 8, 8) / 16).astype(np.float32)
    order_B = np.random.default_rng(seed).permutation(len(images_BHW))
    train_B, test_B = order_B[:num_train], order_B[-900:]
    return ProbeTask(
        train_BHW=images_BHW[train_B],
        train_labels_B=labels_B[train_B],
        test_BHW=images_BHW[test_B],
        test_labels_B=labels_B[test_B],
    )


def surfaces(num_train: int, seed: int) -> ProbeTask:
    """Crops of photographs of brick, grass and gravel; trained on the left half, tested on the right."""
    rng = np.random.default_rng(seed)
    parts = []
    for columns, num in ((slice(0, 256), num_train), (slice(256, 512), 300)):
        crops = [_crop(photo_HW[:, columns], rng) for photo_HW in _photographs() for _ in range(num // 3)]
        parts.append(np.stack(crops))
    return _labelled(parts, 3)


def flaws(surface: int, num_train: int, seed: int) -> ProbeTask:
    """Crops of one photograph, half of them with a scratch, a stain or a hole drawn on."""
    rng = np.random.default_rng(seed)
    photo_HW = _photographs()[surface]
    parts = []
    for columns, num in ((slice(0, 256), num_train), (slice(256, 512), 300)):
        crops = [_crop(photo_HW[:, columns], rng) for _ in range(num)]
        parts.append(np.stack(crops[: num // 2] + [_damage(crop_HW, rng) for crop_HW in crops[num // 2 :]]))
    return _labelled(parts, 2)


def faces(num_train: int, seed: int) -> ProbeTask:
    """Faces or not, 25x25 pixels, 100 of each; what is not trained on is tested on."""
    images_BHW = _skimage_data().lfw_subset().astype(np.float32)
    labels_B = np.repeat(np.array([1, 0]), 100)
    order_B = np.random.default_rng(seed).permutation(200)
    train_B, test_B = order_B[:num_train], order_B[num_train:]
    return ProbeTask(
        train_BHW=images_BHW[train_B],
        train_labels_B=labels_B[train_B],
        test_BHW=images_BHW[test_B],
        test_labels_B=labels_B[test_B],
    )


TASKS: dict[str, Callable[[int], ProbeTask]] = {
    "digits, 200": lambda seed: digits(200, seed),
    "digits, 800": lambda seed: digits(800, seed),
    "brick, grass or gravel": lambda seed: surfaces(90, seed),
    "flaws on brick": lambda seed: flaws(0, 200, seed),
    "flaws on grass": lambda seed: flaws(1, 200, seed),
    "flaws on gravel": lambda seed: flaws(2, 200, seed),
    "faces or not": lambda seed: faces(100, seed),
}


def _skimage_data() -> Any:
    try:
        from skimage import data  # an extra: only the probe and the demo need pictures
    except ModuleNotFoundError as error:
        raise DataError(
            "the probe needs scikit-image's pictures: pip install 'scikit-image>=0.25'"
        ) from error
    return data


def _photographs() -> list[Images]:
    data = _skimage_data()
    return [
        (photo / np.float32(255)).astype(np.float32) for photo in (data.brick(), data.grass(), data.gravel())
    ]


def _labelled(parts: Sequence[Images], num_classes: int) -> ProbeTask:
    labels = [np.repeat(np.arange(num_classes), len(part) // num_classes) for part in parts]
    return ProbeTask(train_BHW=parts[0], train_labels_B=labels[0], test_BHW=parts[1], test_labels_B=labels[1])


def _crop(photo_HW: Images, rng: np.random.Generator, size: int = 64) -> Images:
    y, x = (int(rng.integers(0, side - size)) for side in photo_HW.shape)
    crop_HW: Images = np.ascontiguousarray(photo_HW[y : y + size, x : x + size])
    return crop_HW


def _damage(crop_HW: Images, rng: np.random.Generator) -> Images:
    """Scratch, stain or hole, drawn with other code than the training images' flaws."""
    size = len(crop_HW)
    y_HW, x_HW = np.mgrid[:size, :size].astype(np.float32)
    cy, cx = rng.uniform(0.2, 0.8, 2) * size
    kind = rng.integers(3)
    if kind == 0:
        angle, half = rng.uniform(0, math.pi), rng.uniform(0.2, 0.4) * size
        along_HW = (x_HW - cx) * math.cos(angle) + (y_HW - cy) * math.sin(angle)
        across_HW = (y_HW - cy) * math.cos(angle) - (x_HW - cx) * math.sin(angle)
        mask_HW = (np.abs(across_HW) < rng.uniform(0.8, 1.8)) * (np.abs(along_HW) < half)
        tone, strength = rng.choice([0.05, 0.95]), 0.8
    else:
        radius = rng.uniform(4, 9)
        distance_HW = np.hypot(y_HW - cy, x_HW - cx)
        mask_HW = distance_HW < radius if kind == 1 else np.exp(-((distance_HW / (1.5 * radius)) ** 2))
        tone, strength = (0.03, 0.95) if kind == 1 else (rng.choice([0.1, 0.9]), 0.6)
    mask_HW = mask_HW * np.float32(strength)
    damaged_HW: Images = (crop_HW * (1 - mask_HW) + tone * mask_HW).astype(np.float32)
    return damaged_HW
