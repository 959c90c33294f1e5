"""Tasks of the accuracy benchmark: small, real or drawn, without a download.

A task's test pictures are the same for every seed and are never training pictures; a seed draws the training
pictures, at most 1,000. Settings are chosen on ``search`` data, which has no test split.

Shapes: H and W pixels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

from examples.product_lines.pictures import DEFECTS, draw_surface
from ship.backbone import Backbone
from ship.data import DataSource, Split, TaskData, load_task_data
from ship.images import INTERPOLATIONS
from tests.benchmarks.accuracy.sprites import draw_sprite

__all__ = ["SURFACES", "TASKS", "Problem", "find_vtab", "make_problem", "sprites"]

VAL_SHARE = 0.2
_NUM_CLASSES = 16
# Surfaces that are inspected for defects.
SURFACES = ("brick", "grass", "gravel")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One task with one seed.

    Attributes:
        search: Training pictures alone, a fifth of them for validation.
        final: All training pictures, and the test.
    """

    search: TaskData
    final: TaskData


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images of any size, grey or RGB, with their labels."""

    train: list[Image.Image]
    train_labels: list[str]
    test: list[Image.Image]
    test_labels: list[str]


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


def find_vtab(folder: Path) -> dict[str, Path]:
    """The VTAB-1k tasks in a folder, by name.

    Raises:
        FileNotFoundError: The folder has none.
    """
    found = {f"vtab-{path.parent.name}": path.parent for path in sorted(folder.glob("*/test.txt"))}
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected VTAB-1k tasks, such as {folder / 'cifar' / 'test.txt'}; found none"
        )
    return found


def make_problem(name: str, seed: int, backbone: Backbone, vtab: dict[str, Path]) -> Problem:
    """Splits of a task in the backbone's image size."""
    if name in vtab:
        parts = [
            load_task_data(
                DataSource(path=str(vtab[name]), format="vtab", val_fraction=val_fraction),
                image_size=backbone.image_size,
                interpolation=backbone.interpolation,
            )
            for val_fraction in (VAL_SHARE, 0.0)
        ]
        search, final = parts
        return Problem(search=_without_test(search), final=final)
    pictures = TASKS[name](seed)
    labels = tuple(sorted(set(pictures.train_labels), key=lambda label: (len(label), label)))
    everything = _split(pictures.train, pictures.train_labels, labels, backbone)
    test = _split(pictures.test, pictures.test_labels, labels, backbone)
    kept, val = _divide(everything.labels_B.numpy())
    fingerprint = f"{seed:064x}"
    return Problem(
        search=TaskData(
            labels=labels,
            train=_choose(everything, kept),
            val=_choose(everything, val),
            test=None,
            fingerprint=fingerprint,
        ),
        final=TaskData(labels=labels, train=everything, val=None, test=test, fingerprint=fingerprint),
    )


def _divide(labels_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of four fifths and of one fifth of every class."""
    folds = StratifiedKFold(n_splits=round(1 / VAL_SHARE), shuffle=True, random_state=0)
    return next(iter(folds.split(labels_B, labels_B)))


def _choose(split: Split, places: np.ndarray) -> Split:
    index_B = torch.from_numpy(places)
    return Split(
        images_B3HW=split.images_B3HW[index_B],
        labels_B=split.labels_B[index_B],
        paths=tuple(split.paths[int(i)] for i in places),
    )


def _split(
    images: Iterable[Image.Image], names: list[str], labels: tuple[str, ...], backbone: Backbone
) -> Split:
    height, width = backbone.image_size
    how = INTERPOLATIONS[backbone.interpolation]
    pixels = np.stack([np.asarray(image.convert("RGB").resize((width, height), how)) for image in images])
    return Split(
        images_B3HW=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        labels_B=torch.tensor([labels.index(name) for name in names]),
        paths=tuple(f"{number}.png" for number in range(len(names))),
    )


def _without_test(data: TaskData) -> TaskData:
    return TaskData(
        labels=data.labels, train=data.train, val=data.val, test=None, fingerprint=data.fingerprint
    )
