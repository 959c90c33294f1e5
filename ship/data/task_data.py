"""A task's data in memory: what tuning and evaluation work on.

Shape suffixes: B images, H height, W width.
"""

from dataclasses import dataclass

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
    """

    images_B3HW: Tensor
    labels_B: Tensor
    paths: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __repr__(self) -> str:
        """Counts."""
        height, width = self.images_B3HW.shape[-2:]
        return f"Split({len(self)} images of {height} x {width} pixels)"


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
    """

    labels: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split | None
    fingerprint: str
    view: View = DEFAULT_VIEW

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
