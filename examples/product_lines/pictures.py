"""Nine tasks from pictures that come with scikit-learn and scikit-image: no download.

Handwritten digits (all ten; odd or even; few-shot pairs), faces or not, and three surfaces that are inspected
for defects: photographs of brick, grass and gravel with scratches, stains and holes drawn on them. Training
and test crops of a surface come from different quarters of its photograph.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from skimage import data as photographs
from sklearn.datasets import load_digits

__all__ = ["DEFECTS", "SURFACES", "Picture", "draw_surface", "draw_tasks"]

Picture = tuple[str, str, Image.Image]  # split, label, image

PIXELS = 48
SURFACES = {"brick": photographs.brick, "grass": photographs.grass, "gravel": photographs.gravel}
DEFECTS = ("good", "hole", "scratch", "stain")


def draw_tasks(folder: Path) -> list[str]:
    """Write every task's pictures as ``folder/task/split/label/number.png``; returns the tasks' names."""
    tasks: dict[str, Iterator[Picture]] = {
        "digits": _digits({str(digit): [digit] for digit in range(10)}, num_train=30),
        "digits-odd-even": _digits({"even": [0, 2, 4, 6, 8], "odd": [1, 3, 5, 7, 9]}, num_train=20),
        "digits-1-or-7": _digits({"1": [1], "7": [7]}, num_train=20),
        "digits-3-or-8": _digits({"3": [3], "8": [8]}, num_train=20),
        "digits-4-or-9": _digits({"4": [4], "9": [9]}, num_train=20),
        "faces": _faces(),
        **{f"{name}-surface": draw_surface(name, seed) for seed, name in enumerate(SURFACES)},
    }
    for task, pictures in tasks.items():
        for number, (split, label, image) in enumerate(pictures):
            target = folder / task / split / label / f"{number:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(target)
    return sorted(tasks)


def _digits(classes: dict[str, list[int]], num_train: int) -> Iterator[Picture]:
    """``num_train`` training images of each digit, and at most 50 others of each for the test."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    for label, members in classes.items():
        for digit in members:
            chosen = order[digits.target[order] == digit]
            for rank, index in enumerate(chosen[: num_train + 50]):
                pixels = (digits.images[index] * (255 / 16)).astype(np.uint8)
                image = Image.fromarray(pixels).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
                yield ("train" if rank < num_train else "test"), label, image


def _faces() -> Iterator[Picture]:
    """200 pictures of 25 by 25 pixels, the first 100 of them faces; every other one is for training."""
    for index, pixels in enumerate(photographs.lfw_subset()):
        image = Image.fromarray((pixels * 255).astype(np.uint8)).resize((PIXELS, PIXELS))
        yield ("train" if index % 2 else "test"), ("face" if index < 100 else "other"), image


def draw_surface(
    name: str, seed: int, defects: Sequence[str] = DEFECTS, num_train: int = 50, num_test: int = 50
) -> Iterator[Picture]:
    """Crops of one photograph: two diagonal quarters for training, the other two for the test.

    ``num_train`` and ``num_test`` are of each defect. ``rub`` is one that the demo leaves out: a place where
    the surface has lost its grain, and nothing of its tone.
    """
    rng = np.random.default_rng(seed)
    photograph = Image.fromarray(SURFACES[name]()).convert("L")
    width, height = (side // 2 for side in photograph.size)
    for split, quarters, num_images in (
        ("train", ((0, 0), (1, 1)), num_train),
        ("test", ((0, 1), (1, 0)), num_test),
    ):
        for defect in defects:
            for number in range(num_images):
                column, row = quarters[number % 2]
                size = int(rng.integers(64, 97))
                x = column * width + int(rng.integers(0, width - size))
                y = row * height + int(rng.integers(0, height - size))
                crop = photograph.crop((x, y, x + size, y + size)).resize((2 * PIXELS, 2 * PIXELS))
                yield split, defect, _draw_defect(crop, defect, rng).resize((PIXELS, PIXELS))


def _draw_defect(image: Image.Image, defect: str, rng: np.random.Generator) -> Image.Image:
    """Draw one defect at a random place, size, direction and tone."""
    if defect == "good":
        return image
    mask = Image.new("L", image.size)
    pen = ImageDraw.Draw(mask)
    x, y = rng.uniform(24, 72, size=2)
    if defect == "scratch":
        angle, length = rng.uniform(0, np.pi), rng.uniform(24, 44)
        dx, dy, bend = np.cos(angle) * length, np.sin(angle) * length, rng.uniform(-8, 8, size=2)
        pen.line([(x - dx, y - dy), (x + bend[0], y + bend[1]), (x + dx, y + dy)], fill=255, width=4)
        tone, strength = (240 if rng.random() < 0.5 else 20), 0.95
    elif defect == "hole":
        radius = rng.uniform(5, 10)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        tone, strength = 8, 1.0
    else:
        for _ in range(4):
            radius = rng.uniform(8, 16)
            cx, cy = x + rng.normal(0, 7), y + rng.normal(0, 7)
            pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(5))
        tone, strength = (215 if rng.random() < 0.5 else 40), 0.7
    if defect == "rub":
        return Image.composite(image.filter(ImageFilter.GaussianBlur(2.5)), image, mask)
    mask = mask.filter(ImageFilter.GaussianBlur(0.7)).point(lambda value: int(value * strength))
    return Image.composite(Image.new("L", image.size, tone), image, mask)
