"""Listing of a data set: images with their class and split, none of them read yet."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ship.data.passed_over import PassedOver
from ship.data.source import DataFormat

__all__ = [
    "SPLIT_SPELLINGS",
    "Item",
    "Listing",
    "SplitName",
    "as_label",
    "find_split",
    "is_image_name",
    "sort_labels",
]

SplitName = Literal["train", "val", "test"]
# Usual spellings; letter case, separators and a word such as `set` or `images` at the end do not count.
SPLIT_SPELLINGS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst", "holdout"),
}
_SPLIT_OF_SPELLING = {spelling: split for split, all_ in SPLIT_SPELLINGS.items() for spelling in all_}
_SPLIT_SUFFIX = re.compile(r"(set|split|data|images|imgs|files)$")

# More than we can decode, on purpose: a GIF or HEIC in a class folder is named in an error when it is loaded,
# instead of being passed over.
_IMAGE_NAME = re.compile(
    r".*\.(jpe?g|jpe|jfif|jpf|jps|mpo|a?png|webp|bmp|dib|tiff?|gif|heic|heif|hif|avif|jp2|j2k|jpx|jxl|ppm|pgm|"
    r"pbm|pnm|pfm|tga|ico|pcx|exr|hdr|dng|cr2|cr3|nef|arw|orf|rw2|raf|dcm)",
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
        passed_over: What lies beside them and was left out, by kind.
    """

    format: DataFormat
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    passed_over: tuple[PassedOver, ...] = ()

    def of_split(self, split: SplitName) -> tuple[Item, ...]:
        """The images of one split, sorted by path."""
        return tuple(item for item in self.items if item.split == split)

    @property
    def num_of_split(self) -> Counter[SplitName]:
        """Number of images of each split."""
        return Counter(item.split for item in self.items)

    @property
    def held_out_split(self) -> SplitName:
        """The split that is measured on: the test split, or the validation split if that is empty."""
        return "test" if self.num_of_split["test"] else "val"

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Classes without a held-out image."""
        measured = {item.label for item in self.of_split(self.held_out_split)}
        return tuple(label for label in self.labels if label not in measured)


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image, of a format that we can decode or not."""
    return _IMAGE_NAME.fullmatch(name) is not None


def find_split(name: str) -> SplitName | None:
    """The split that a folder's name or a table's value means, such as ``Training`` or ``test_set``."""
    letters = re.sub(r"[^a-z]", "", name.casefold())
    plain = _SPLIT_SUFFIX.sub("", letters) or letters
    # `train1` and `test-2` are names of something else.
    return None if re.search(r"[0-9]", name) else _SPLIT_OF_SPELLING.get(plain)


def as_label(name: str) -> str:
    """A class name in one Unicode form (NFC): macOS and Windows write the same name in two."""
    return unicodedata.normalize("NFC", name)


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels: by value if all of them are whole numbers, else by name."""
    distinct = sorted(set(labels))
    if all(_WHOLE_NUMBER.fullmatch(label) for label in distinct):
        distinct.sort(key=int)
    return tuple(distinct)
