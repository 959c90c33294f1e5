"""One task with one seed as the splits that are trained and tested on, in the backbone's image size.

Settings are chosen on ``search`` data, which has no test split.

Shapes: H and W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from ship.backbone import Backbone
from ship.data import DataSource, Split, TaskData, load_task_data
from ship.images import ImageLike, read_image

__all__ = ["Pictures", "Problem", "find_vtab", "make_problem", "make_vtab_problem"]

VAL_SHARE = 0.2


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
    """Images of any size and form, with their labels."""

    train: list[ImageLike]
    train_labels: list[str]
    test: list[ImageLike]
    test_labels: list[str]


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


def make_vtab_problem(folder: Path, backbone: Backbone) -> Problem:
    """Splits of a VTAB-1k task."""
    parts = [
        load_task_data(
            DataSource(path=str(folder), format="vtab", val_fraction=val_fraction),
            image_size=backbone.image_size,
            interpolation=backbone.interpolation,
        )
        for val_fraction in (VAL_SHARE, 0.0)
    ]
    search, final = parts
    return Problem(search=_without_test(search), final=final)


def make_problem(pictures: Pictures, seed: int, backbone: Backbone) -> Problem:
    """Splits of drawn pictures."""
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
    images: Iterable[ImageLike], names: list[str], labels: tuple[str, ...], backbone: Backbone
) -> Split:
    pixels = [
        read_image(image, size=backbone.image_size, interpolation=backbone.interpolation) for image in images
    ]
    return Split(
        images_B3HW=torch.stack(pixels),
        labels_B=torch.tensor([labels.index(name) for name in names]),
        paths=tuple(f"{number}.png" for number in range(len(names))),
    )


def _without_test(data: TaskData) -> TaskData:
    return TaskData(
        labels=data.labels, train=data.train, val=data.val, test=None, fingerprint=data.fingerprint
    )
