"""Copies of a picture, pixel for pixel as the backbone sees them, whatever files they are."""

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from ship.data.task_data import Split, TaskData
from ship.errors import DataError

__all__ = ["find_leaked", "leave_out_leaked", "pixel_digest", "pixel_digests"]


def leave_out_leaked(data: TaskData) -> TaskData:
    """The data without held-out images that are trained on, pixel for pixel as the backbone sees them.

    So are validation images, once they have chosen the settings. The same picture in another format, or with
    other notes, is another file, which ``refuse_duplicates`` does not know.

    Raises:
        DataError: None is left of a split.
    """
    known, splits = set(pixel_digests(data.train)), {}
    for name, split in (("val", data.val), ("test", data.test)):
        if split is None:
            continue
        digests = pixel_digests(split)
        is_new_B = torch.tensor([digest not in known for digest in digests], dtype=torch.bool)
        if not is_new_B.any():
            raise DataError(
                f"all {len(split)} images of {name} are, as the backbone sees them, pixel for pixel what is "
                f"trained on, such as {split.paths[0]}: nothing can be measured on them, and `ship check` "
                "lists the copies"
            )
        known.update(digests)
        splits[name] = split if is_new_B.all() else split.take(is_new_B)
    left_out = replace(data, val=splits.get("val"), test=splits.get("test"))
    kept = set(left_out.held_out.paths)
    return replace(left_out, leaked=tuple(path for path in data.held_out.paths if path not in kept))


def find_leaked(data: TaskData) -> list[str]:
    """Paths of held-out images that are trained on as well, pixel for pixel as the backbone sees them."""
    trained = set(pixel_digests(data.train))
    digests = pixel_digests(data.held_out)
    return [path for path, digest in zip(data.held_out.paths, digests, strict=True) if digest in trained]


def pixel_digests(split: Split) -> list[str]:
    """The digest of each image."""
    return list(map(pixel_digest, split.images_B3HW))


def pixel_digest(image_3HW: Tensor) -> str:
    """The first 32 hex digits of the sha256 of an image's pixels, as the backbone sees them."""
    return hashlib.sha256(image_3HW.contiguous().numpy().data).hexdigest()[:32]
