"""Listing of a data set: images with their class and split, none of them read yet."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ship.data.source import DataFormat

__all__ = ["SPLIT_OF_NAME", "Item", "Listing", "SplitName", "is_image_name", "sort_labels"]

SplitName = Literal["train", "val", "test"]
SPLIT_OF_NAME: dict[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}

# More than we can decode, on purpose: a GIF or HEIC in a class folder is named in an error when it is loaded,
# instead of being passed over in silence.
_IMAGE_NAME = re.compile(
    r".*\.(jpe?g|jpe|jfif|png|webp|bmp|dib|tiff?|gif|heic|heif|avif|jp2|j2k|jxl|ppm|pgm|pbm|pnm|tga|ico)",
    re.IGNORECASE | re.DOTALL,
)
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    Attributes:
        path: Relative to the data set's root, with ``/``.
        label: Name of its class.
        split: ``train``, ``val`` or ``test``.
        group: What it is a picture of, such as a part, if the source says how to tell.
    """

    path: str
    label: str
    split: SplitName
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A data set's images, sorted by path, and its classes.

    Attributes:
        format: The format it was read as, never ``auto``.
        labels: Class names; an image's label index is the place of its class here.
        items: Every image.
    """

    format: DataFormat
    labels: tuple[str, ...]
    items: tuple[Item, ...]

    def of_split(self, split: SplitName) -> tuple[Item, ...]:
        """The images of one split, sorted by path."""
        return tuple(item for item in self.items if item.split == split)

    @property
    def num_of_split(self) -> Counter[SplitName]:
        """Number of images of each split."""
        return Counter(item.split for item in self.items)


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image, of a format that we can decode or not."""
    return _IMAGE_NAME.fullmatch(name) is not None


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels: by value if all of them are whole numbers, else by name."""
    distinct = sorted(set(labels))
    if all(_WHOLE_NUMBER.fullmatch(label) for label in distinct):
        distinct.sort(key=int)
    return tuple(distinct)
