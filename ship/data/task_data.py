"""A task's data in memory: what tuning and evaluation work on.

Shape suffixes: B images, H height, W width.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ship.errors import DataError
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["Split", "TaskData"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images with their classes.

    Attributes:
        images_B3HW: uint8, RGB; ``B,T,3,H,W`` of pictures in T tiles.
        labels_B: int64, places in ``TaskData.labels``.
        paths: Path of each image, relative to the data set's root.
        groups: Group of each image, whose images no split may divide; None where no group was asked for.
        contents: sha256 of each image's file, or the tag of its content that a remote backend gives; None
            where they are not known.
    """

    images_B3HW: Tensor
    labels_B: Tensor
    paths: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    contents: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def joined(self, other: "Split") -> "Split":
        """These images, then the other's."""
        return Split(
            images_B3HW=torch.cat([self.images_B3HW, other.images_B3HW]),
            labels_B=torch.cat([self.labels_B, other.labels_B]),
            paths=self.paths + other.paths,
            groups=_joined(self.groups, other.groups),
            contents=_joined(self.contents, other.contents),
        )

    def take(self, chosen_B: Tensor) -> "Split":
        """The images for which the mask is true."""
        places = chosen_B.nonzero()[:, 0].tolist()
        return Split(
            images_B3HW=self.images_B3HW[chosen_B],
            labels_B=self.labels_B[chosen_B],
            paths=tuple(self.paths[place] for place in places),
            groups=_taken(self.groups, places),
            contents=_taken(self.contents, places),
        )

    def __repr__(self) -> str:
        """Counts."""
        height, width = self.images_B3HW.shape[-2:]
        return f"Split({len(self)} images of {height} x {width} pixels)"


def _joined(first: tuple[str, ...] | None, second: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if first is None or second is None else first + second


def _taken(values: tuple[str, ...] | None, places: list[int]) -> tuple[str, ...] | None:
    return None if values is None else tuple(values[place] for place in places)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskData:
    """Images and labels of a task.

    Attributes:
        labels: Class names.
        train: Images to tune on.
        val: Images to choose settings by, if any.
        test: Images to measure the result on, if any.
        fingerprint: Fingerprint of the data set it was loaded from, 64 hex digits.
        view: Part of the pictures that the images show, and their tiles; never ``auto``.
        leaked: Paths of test images, or of validation images if there are none, that were left out: their
            very pixels are trained on.
    """

    labels: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split | None
    fingerprint: str
    view: View = DEFAULT_VIEW
    leaked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse data that a result cannot be measured on, and images that are not of the view.

        Raises:
            DataError: There is neither a test nor a validation split, or the tiles are not the view's.
        """
        if self.num_tiles != self.view.num_tiles:
            raise DataError(f"images of {self.num_tiles} tiles: the view has {self.view.num_tiles}")
        if self.test is None and self.val is None:
            raise DataError("no images held out: expected a test or a validation split")

    def __repr__(self) -> str:
        """Counts."""
        numbers = [("train", self.train), ("val", self.val), ("test", self.test)]
        counts = ", ".join(f"{len(split)} {name}" for name, split in numbers if split is not None)
        return f"TaskData({len(self.labels)} classes, {counts})"

    def merged(self) -> "TaskData":
        """Training and validation images together as training images, where there are test images too."""
        if self.val is None or self.test is None:
            return self
        return replace(self, train=self.train.joined(self.val), val=None)

    @property
    def num_tiles(self) -> int:
        """Tiles of each picture."""
        images = self.train.images_B3HW
        return images.shape[1] if images.ndim == 5 else 1

    @property
    def held_out(self) -> Split:
        """Images that the result is measured on: the test images, else the validation images."""
        split = self.test if self.test is not None else self.val
        assert split is not None, "checked on construction"
        return split
