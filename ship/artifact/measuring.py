"""Measuring of an artifact on any labelled images: its answers, in the form of ``held_out.json``.

Images are loaded a few hundred at a time, so that their number is not bounded by memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ship.artifact.evidence import draw_thumbnails, rounded_rows, telling_places
from ship.artifact.files import LoadedPrompt, insert_verified
from ship.artifact.held_out import HeldOut
from ship.backbone import Backbone, as_rows
from ship.data import DataSource
from ship.data.items import SplitName
from ship.data.listing import open_labelled
from ship.data.loading import load_in_parts
from ship.data.pixel_copies import pixel_digest
from ship.runtime.baking import bake
from ship.runtime.runtime import RowOutput, Runtime
from ship.runtime.slots import Slot
from ship.settings.view import MAX_PIXELS

__all__ = ["answer_rows", "measure", "open_runtime"]


def measure(
    loaded: LoadedPrompt,
    backbone: Backbone,
    source: DataSource,
    *,
    split: SplitName | None = None,
    thumbnails: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> HeldOut:
    """Answers of an artifact on labelled images, without those of the linear probe.

    Args:
        loaded: The artifact.
        backbone: The backbone that it belongs to.
        source: The images; their classes have to be some of the task's.
        split: Split to take; None for all images.
        thumbnails: Whether small pictures of mistakes are drawn; these images are read a second time.
        max_pixels: Refuse pictures with more pixels than this.
        on_progress: Called with images done and images in all.

    Raises:
        ArtifactError: It belongs to another backbone, or does not answer as when it was tuned.
        DataError: Lists every problem of the data.
    """
    card = loaded.card
    folder, listing = open_labelled(source, card.labels, split)
    look: dict[str, Any] = {
        "image_size": backbone.image_size,
        "interpolation": backbone.interpolation,
        "view": card.view,
        "max_pixels": max_pixels,
    }
    runtime, slot = open_runtime(loaded, backbone)
    digests: list[str] = []
    labels_B: list[int] = []
    rows: list[RowOutput] = []
    for part in load_in_parts(folder, listing, **look):
        digests += map(pixel_digest, part.images_B3HW)
        labels_B += part.labels_B.tolist()
        for row in answer_rows(runtime, slot, part.images_B3HW):
            rows.append(row)
            on_progress(len(rows), len(listing.items))
    scores = rounded_rows(torch.stack([row.logits_C for row in rows]))
    telling = telling_places(card.labels, labels_B, scores) if thumbnails else []
    few = replace(listing, items=tuple(listing.items[place] for place in telling))
    images = (image_3HW for part in load_in_parts(folder, few, **look) for image_3HW in part.images_B3HW)
    return HeldOut(
        labels=card.labels,
        paths=tuple(item.path for item in listing.items),
        digests=tuple(digests),
        labels_B=tuple(labels_B),
        logits_BC=scores,
        distances_B=_distances(loaded, rows),
        thumbnails=draw_thumbnails(zip(telling, images, strict=True), card.view),
        num_images=len(listing.items),
    )


def open_runtime(loaded: LoadedPrompt, backbone: Backbone) -> tuple[Runtime, Slot]:
    """A runtime of one prompt, which answers as when it was tuned.

    Raises:
        ArtifactError: It belongs to another backbone, or does not answer as when it was tuned.
    """
    padding_bytes = 4 * backbone.info.width
    runtime = Runtime(backbone, capacity_bytes=bake(backbone, loaded.prompt).num_bytes + padding_bytes)
    return runtime, insert_verified(runtime, loaded)


def answer_rows(runtime: Runtime, slot: Slot, images_B3HW: Tensor) -> Iterator[RowOutput]:
    """Answers on images, uint8, ``B,3,H,W`` or ``B,T,3,H,W``, as few at a time as the backbone allows."""
    num_pictures = max(1, runtime.backbone.info.rows_at_once // slot.num_tiles)
    for images in images_B3HW.split(num_pictures):
        yield from runtime.infer_rows(as_rows(images), [slot] * len(images))


def _distances(loaded: LoadedPrompt, rows: Sequence[RowOutput]) -> tuple[float, ...] | None:
    """Distances from the training images; None where the artifact cannot tell them."""
    if loaded.distance is None:
        return None
    return tuple(loaded.distance.distances(torch.stack([row.feature_D for row in rows])).tolist())
