"""Folds of a task's training images, by which settings are chosen where there are no validation images.

Shapes: B images.
"""

import hashlib
from dataclasses import replace

import torch
from torch import Generator, Tensor

from ship.data import Split, TaskData
from ship.data.pixel_copies import pixel_digests
from ship.settings.search_config import MIN_IMAGES_TO_HOLD_OUT, NUM_FOLDS

__all__ = ["make_folds"]

_HELD_OUT_SHARE = 0.2


def make_folds(data: TaskData, seed: int) -> list[TaskData]:
    """Data to choose settings by: each with training images, and as test images those to compare by.

    A class keeps at least one image to train on, and a group stays together. Without a class of two images
    (groups) there is no fold.
    """
    if data.val is not None and data.test is not None:
        return [replace(data, val=None, test=data.val)]
    train = data.train
    is_small = len(train) < MIN_IMAGES_TO_HOLD_OUT
    num_parts = NUM_FOLDS if is_small else round(1 / _HELD_OUT_SHARE)
    part_B = _deal(train, num_parts, Generator().manual_seed(seed))
    folds = []
    for number in range(num_parts if is_small else 1):
        is_held_out_B = part_B == number
        if bool(is_held_out_B.any()):
            digest = hashlib.sha256(f"{data.fingerprint}:{seed}:{number}".encode()).hexdigest()
            folds.append(
                replace(
                    data,
                    train=train.take(~is_held_out_B),
                    val=None,
                    test=train.take(is_held_out_B),
                    fingerprint=digest,
                )
            )
    return folds


def _deal(train: Split, num_parts: int, generator: Generator) -> Tensor:
    """A part for each image, class by class in turn, units whole; -1 for the only image (unit) of a class.

    A unit of several classes goes with its first image's.
    """
    by_label: dict[int, list[list[int]]] = {}
    for places in _find_units(train):
        by_label.setdefault(int(train.labels_B[places[0]]), []).append(places)
    part_B = torch.full_like(train.labels_B, -1)
    num_dealt = 0
    for _, units in sorted(by_label.items()):
        if len(units) > 1:
            # Classes go on where the one before ended, so that parts of few images are of one size.
            for i, chosen in enumerate(torch.randperm(len(units), generator=generator).tolist()):
                part_B[units[chosen]] = (i + num_dealt) % num_parts
            num_dealt += len(units)
    return part_B


def _find_units(train: Split) -> list[list[int]]:
    """Places of images that no fold may divide: those of a group, and copies of a picture."""
    first_of = list(range(len(train)))

    def find(place: int) -> int:
        while first_of[place] != place:
            place = first_of[place]
        return place

    for names in (train.groups or train.paths, pixel_digests(train)):
        seen: dict[str, int] = {}
        for place, name in enumerate(names):
            one, other = find(place), find(seen.setdefault(name, place))
            first_of[max(one, other)] = min(one, other)
    units: dict[int, list[int]] = {}
    for place in range(len(train)):
        units.setdefault(find(place), []).append(place)
    return list(units.values())
