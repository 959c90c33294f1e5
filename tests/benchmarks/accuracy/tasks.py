"""Tasks of the accuracy benchmark: small, real or drawn, without a download.

A task's test pictures are the same for every seed and are never training pictures; a seed draws the training
pictures, at most 1,000.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from examples.product_lines.pictures import DEFECTS, draw_surface
from tests.benchmarks.accuracy.problem import Pictures
from tests.benchmarks.accuracy.sprites import draw_sprite

__all__ = ["SURFACES", "TASKS", "sprites"]

_NUM_CLASSES = 16
# Surfaces that are inspected for defects.
SURFACES = ("brick", "grass", "gravel")


def digits(
    num_a_class: int, name_of: Callable[[int], str] = str, classes: int = 10
) -> Callable[[int], Pictures]:
    """Handwritten digits of 8x8 pixels; 797 of 1,797 for the test."""

    def draw(seed: int) -> Pictures:
        bunch = load_digits()
        images = [Image.fromarray((pixels * (255 / 16)).astype(np.uint8)) for pixels in bunch.images]
        labels = [name_of(int(digit)) for digit in bunch.target]
        places = np.arange(len(images))
        pool, test = train_test_split(places, test_size=797, random_state=0, stratify=bunch.target)
        chosen, _ = train_test_split(
            pool, train_size=num_a_class * classes, random_state=seed, stratify=bunch.target[pool]
        )
        return Pictures(
            train=[images[i] for i in chosen],
            train_labels=[labels[i] for i in chosen],
            test=[images[i] for i in test],
            test_labels=[labels[i] for i in test],
        )

    return draw


def faces(seed: int) -> Pictures:
    """Faces or not, 25x25 pixels: 50 and 50 for training, as many for the test."""
    from skimage.data import lfw_subset

    images = [Image.fromarray((pixels * 255).astype(np.uint8)) for pixels in lfw_subset()]
    labels = ["face"] * 100 + ["other"] * 100
    order = [int(i) for i in np.random.default_rng(seed).permutation(200)]
    train, test = [i for i in order if i % 2], [i for i in range(200) if i % 2 == 0]
    return Pictures(
        train=[images[i] for i in train],
        train_labels=[labels[i] for i in train],
        test=[images[i] for i in test],
        test_labels=[labels[i] for i in test],
    )


def surface(name: str) -> Callable[[int], Pictures]:
    """Good, or one of four defects, one of them subtle; 40 a class. The test has other quarters."""

    def draw(seed: int) -> Pictures:
        kinds = (*DEFECTS, "rub")
        train = list(draw_surface(name, seed + 1, kinds, num_train=40, num_test=0))
        test = list(draw_surface(name, 0, kinds, num_train=0, num_test=60))
        return Pictures(
            train=[image for _, _, image in train],
            train_labels=[label for _, label, _ in train],
            test=[image for _, _, image in test],
            test_labels=[label for _, label, _ in test],
        )

    return draw


def sprites(factor: str, number: int = 1000) -> Callable[[int], Pictures]:
    """One white shape on black, by the factors of dSprites; 16 classes, as in VTAB-1k.

    Shape (3), scale (6, from 0.5 to 1), orientation (40 over a turn), x and y (32 each) are drawn at random;
    the label is a sixteenth of ``orientation`` or of ``x``.
    """
    sizes = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}

    def draw_split(seed: int) -> tuple[list[Image.Image], list[str]]:
        rng = np.random.default_rng(seed)
        images, labels = [], []
        for _ in range(number):
            values = {name: int(rng.integers(size)) for name, size in sizes.items()}
            images.append(draw_sprite(**values))
            labels.append(str(values[factor] * _NUM_CLASSES // sizes[factor]))
        return images, labels

    def draw(seed: int) -> Pictures:
        train, train_labels = draw_split(seed)
        test, test_labels = draw_split(1_000_000)
        return Pictures(train=train, train_labels=train_labels, test=test, test_labels=test_labels)

    return draw


def _parity(digit: int) -> str:
    return "odd" if digit % 2 else "even"


TASKS: dict[str, Callable[[int], Pictures]] = {
    "digits": digits(80),
    "digits-odd-even": digits(20, _parity),
    "digits-5-shot": digits(5),
    "digits-20-shot": digits(20),
    "faces": faces,
    **{name: surface(name) for name in SURFACES},
    "sprites-location": sprites("x"),
    "sprites-orientation": sprites("orientation"),
}
