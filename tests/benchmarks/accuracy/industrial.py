"""Industrial suite of the accuracy benchmark: real parts, with the sizes of published figures.

| task | training | test | published |
| --- | --- | --- | --- |
| solar | 1,967 | 657 | 75/25, stratified: SVM 0.824, CNN 0.884 (arXiv 1807.02894); ResNet-152 0.901 |
| textile-50 | 50 a class | 250 a class | CLIP few-shot (arXiv 2501.12596): B/32 0.685, L/14 0.975 |
| extrusion-50, -350 | 50, 350 a class | 100 a class | the same: L/14 0.715, 0.795 |
| microstructure-72 | 72 a class | 150 a class | the same: 0.873 |

Published CLIP figures are of two classes, nominal and any defect, on at most 100 test pictures a class.
``-kinds`` tasks tell the kinds of defect apart; ``solar-N`` is few-shot. Frames of extrusion follow one
another in a video, and neighbours look alike: its figures say nothing of another day's run.

A task's test pictures are the same for every seed and are never training pictures; a seed draws the training
pictures, but of ``solar`` and ``solar-probability``, which train on all that are left.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from examples.industrial.pictures import Picture, read_archive, read_solar_cells, read_textile
from tests.benchmarks.accuracy.problem import Pictures

__all__ = ["TASKS", "Draw", "choose", "draw_pictures"]

# A seed, and the folder of what no package holds.
Draw = Callable[[int, Path | None], Pictures]


def _solar(label_of: Callable[[str], str], *, num_train: int | None) -> Draw:
    def draw(seed: int, _: Path | None) -> Pictures:
        return draw_pictures(read_solar_cells(), label_of, 0.25, num_train, seed)

    return draw


def _textile(label_of: Callable[[str], str], *, num_train: int) -> Draw:
    def draw(seed: int, _: Path | None) -> Pictures:
        return draw_pictures(read_textile(), label_of, 250, num_train, seed)

    return draw


def _archive(name: str, label_of: Callable[[str], str], *, num_test: int, num_train: int) -> Draw:
    def draw(seed: int, folder: Path | None) -> Pictures:
        return draw_pictures(read_archive(name, folder), label_of, num_test, num_train, seed)

    return draw


def draw_pictures(
    pictures: list[Picture],
    label_of: Callable[[str], str],
    num_test: int | float,
    num_train: int | None,
    seed: int,
) -> Pictures:
    """Training and test pictures, with the labels that ``label_of`` gives their kinds."""
    kinds = np.array([picture.kind for picture in pictures])
    train, test = choose(kinds, label_of, num_test, num_train, seed)
    return Pictures(
        train=[pictures[i].content for i in train],
        train_labels=[label_of(kinds[i]) for i in train],
        test=[pictures[i].content for i in test],
        test_labels=[label_of(kinds[i]) for i in test],
    )


def choose(
    kinds: np.ndarray,
    label_of: Callable[[str], str],
    num_test: int | float,
    num_train: int | None,
    seed: int,
) -> tuple[list[int], list[int]]:
    """Indices of training and of test pictures; every label holds its kinds in proportion.

    Args:
        kinds: Kind of each picture, as its source writes it.
        label_of: Label of a kind.
        num_test: Test pictures a label, the same for every seed; below 1 a share of it.
        num_train: Training pictures a label, drawn by the seed; None for all that are left.
        seed: Seed of the training pictures.
    """
    labels = np.array([label_of(kind) for kind in kinds])
    train: list[int] = []
    test: list[int] = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        pool, held_out = train_test_split(places, test_size=num_test, random_state=0, stratify=kinds[places])
        if num_train is not None:
            pool, _ = train_test_split(pool, train_size=num_train, random_state=seed, stratify=kinds[pool])
        train += [int(i) for i in pool]
        test += [int(i) for i in held_out]
    return train, test


def _is_defective(kind: str) -> str:
    return "defect" if float(kind.split("-")[0]) >= 0.5 else "good"


def _probability(kind: str) -> str:
    return kind.split("-")[0]


def _is(nominal: str) -> Callable[[str], str]:
    return lambda kind: "good" if kind == nominal else "defect"


TASKS: dict[str, Draw] = {
    "solar": _solar(_is_defective, num_train=None),
    **{f"solar-{number}": _solar(_is_defective, num_train=number) for number in (10, 20, 50, 100, 200)},
    "solar-probability": _solar(_probability, num_train=None),
    "textile-50": _textile(_is("nominal"), num_train=50),
    "textile-kinds-50": _textile(str, num_train=50),
    "textile-kinds-200": _textile(str, num_train=200),
    "extrusion-50": _archive("extrusion", _is("normal"), num_test=100, num_train=50),
    "extrusion-350": _archive("extrusion", _is("normal"), num_test=100, num_train=350),
    "extrusion-kinds-50": _archive("extrusion", str, num_test=100, num_train=50),
    "microstructure-72": _archive("microstructure", _is("Uniform"), num_test=150, num_train=72),
    "microstructure-kinds-20": _archive("microstructure", str, num_test=25, num_train=20),
}
