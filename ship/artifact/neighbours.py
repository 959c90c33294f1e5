"""The training images that are most like a picture, by the features that an artifact's head reads.

An artifact keeps no training image and no feature of one: both come from the data set, as long as it is the
one that the artifact was tuned on.

Shapes: B images, D width.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ship.artifact.card import PromptCard
from ship.artifact.evidence import draw_thumbnail
from ship.artifact.measuring import answer_rows
from ship.data import DataSource, Item, fingerprint_data
from ship.data.folder import Folder
from ship.data.items import Listing
from ship.data.listing import open_listing
from ship.data.loading import load_in_parts
from ship.errors import DataError
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot
from ship.settings.view import MAX_PIXELS

__all__ = ["MAX_TRAINING", "Neighbour", "TrainingFeatures", "measure_training"]

MAX_TRAINING = 2000


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training image that is like a picture.

    Attributes:
        path: Its path, relative to the data set's root.
        label: Its class.
        similarity: Cosine of its features and the picture's, -1 to 1.
        thumbnail: JPEG.
    """

    path: str
    label: str
    similarity: float
    thumbnail: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingFeatures:
    """Features of a task's training images.

    Attributes:
        card: Card of the artifact that they were measured with.
        folder: Folder of the data.
        listing: The training images that were looked at.
        features_BD: Their features, of length 1.
        num_training: Training images in all.
        max_pixels: Pictures with more pixels than this are refused.
    """

    card: PromptCard
    folder: Folder
    listing: Listing
    features_BD: Tensor
    num_training: int
    max_pixels: int = MAX_PIXELS

    def nearest(self, feature_D: Tensor, num: int) -> list[Neighbour]:
        """The images whose features have the highest cosine with a picture's.

        Raises:
            DataError: One of them cannot be read any more.
        """
        cosines_B = self.features_BD @ torch.nn.functional.normalize(feature_D.float(), dim=0)
        best = cosines_B.topk(min(num, len(cosines_B)))
        items = tuple(self.listing.items[place] for place in best.indices.tolist())
        parts = load_in_parts(
            self.folder, replace(self.listing, items=items), **_look(self.card, self.max_pixels)
        )
        images = (image_3HW for part in parts for image_3HW in part.images_B3HW)
        return [
            Neighbour(
                path=item.path,
                label=item.label,
                similarity=similarity,
                thumbnail=draw_thumbnail(image, self.card.view),
            )
            for item, similarity, image in zip(items, best.values.tolist(), images, strict=True)
        ]


def measure_training(
    runtime: Runtime,
    slot: Slot,
    card: PromptCard,
    source: DataSource,
    *,
    most: int = MAX_TRAINING,
    max_pixels: int = MAX_PIXELS,
    goes_on: Callable[[], bool] = lambda: True,
) -> TrainingFeatures:
    """Features of the training images of an artifact.

    Args:
        runtime: Runtime that holds the slot.
        slot: The artifact's prompt.
        card: The artifact's card.
        source: The data set that it was tuned on.
        most: Images to look at, of more some that a fixed seed draws.
        max_pixels: Refuse pictures with more pixels than this.
        goes_on: Asked after some hundred images each, whether there is time for more.

    Raises:
        DataError: It cannot be read, or is another one meanwhile.
    """
    if fingerprint_data(source) != card.data_fingerprint:
        raise DataError(
            f"{source.path}: not the data that this version was tuned on any more: images, labels or splits "
            "were changed since"
        )
    folder, listing = open_listing(source)
    trained = _trained_on(listing, card)
    # In an order in which any number of the first is a fair share.
    items = tuple(random.Random(0).sample(trained, min(most, len(trained))))
    features: list[Tensor] = []
    for part in load_in_parts(folder, replace(listing, items=items), **_look(card, max_pixels)):
        features += [row.feature_D for row in answer_rows(runtime, slot, part.images_B3HW)]
        if not goes_on():
            break
    return TrainingFeatures(
        card=card,
        folder=folder,
        listing=replace(listing, items=items[: len(features)]),
        features_BD=torch.nn.functional.normalize(torch.stack(features).float(), dim=1),
        num_training=len(trained),
        max_pixels=max_pixels,
    )


def _trained_on(listing: Listing, card: PromptCard) -> Sequence[Item]:
    """Validation images are trained on, too, unless they choose the settings or are all that is held out."""
    has_both = listing.num_of_split["test"] and not card.config.patience
    splits = ("train", "val") if has_both else ("train",)
    return [item for item in listing.items if item.split in splits]


def _look(card: PromptCard, max_pixels: int) -> dict[str, Any]:
    height, width = card.backbone["image_size"]
    return {
        "image_size": (height, width),
        "interpolation": card.backbone["interpolation"],
        "view": card.view,
        "max_pixels": max_pixels,
    }
