"""Inspection of every image of a data set, before anything is tuned.

Owns the measurements; the limits (too dark, too alike) are the caller's.

Shapes: B images, H and W pixels of a small grey copy.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ship.data.folder import Folder
from ship.data.items import Item, Listing
from ship.data.listing import open_listing
from ship.data.source import DataSource
from ship.errors import DataError, ImageError
from ship.images import decode_image, read_size
from ship.in_order import map_in_order
from ship.settings.view import MAX_PIXELS, Bits, View

__all__ = ["ImageFacts", "Inspection", "find_near_duplicates", "inspect_data"]

Grey = npt.NDArray[np.float32]

_SIDE = 256
_THUMBNAIL = 32
# Cosine of two thumbnails, brightness and contrast taken out: two photographs of one scene are below it by
# their noise, a copy that was saved again or scaled is above.
_ALIKE = 0.998
_FLAT = 0.01
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFacts:
    """One image that could be read.

    Attributes:
        item: Its path, class and split.
        size: Width and height in pixels, as shown.
        brightness: Mean, 0 for black to 1 for white.
        contrast: Standard deviation, on the same scale.
        sharpness: Variance of the Laplacian over the variance of the grey values: the share of fine detail,
            whatever the light was.
        digest: sha256 of the pixels at 256 x 256.
        thumbnail_X: Grey, 32 x 32, mean 0 and length 1; zeros if the image is flat.
    """

    item: Item
    size: tuple[int, int]
    brightness: float
    contrast: float
    sharpness: float
    digest: str
    thumbnail_X: Grey


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A data set, image by image.

    Attributes:
        listing: All images that it names.
        images: Those that could be read, by path.
        unreadable: Path and reason of the others.
    """

    listing: Listing
    images: tuple[ImageFacts, ...]
    unreadable: dict[str, str]


def inspect_data(
    source: DataSource,
    *,
    bits: Bits = "auto",
    max_pixels: int = MAX_PIXELS,
    num_threads: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Read and measure every image.

    Args:
        source: The data set.
        bits: See ``View``.
        max_pixels: Pictures with more pixels than this cannot be read.
        num_threads: Images that are read and decoded at once.
        on_progress: Called in this thread with images done and images in all.

    Raises:
        DataError: Lists every problem of the layout. An image that cannot be read is a finding, not an error.
    """
    folder, listing = open_listing(source)
    view = View(bits=bits)
    images: list[ImageFacts] = []
    unreadable: dict[str, str] = {}
    calls = map_in_order(lambda item: _inspect(folder, item, view, max_pixels), listing.items, num_threads)
    with closing(calls) as found:
        for number, (item, facts) in enumerate(zip(listing.items, found, strict=True), start=1):
            if isinstance(facts, str):
                unreadable[item.path] = facts
            else:
                images.append(facts)
            if on_progress is not None:
                on_progress(number, len(listing.items))
    return Inspection(listing=listing, images=tuple(images), unreadable=unreadable)


def find_near_duplicates(images: Sequence[ImageFacts]) -> list[tuple[int, int]]:
    """Pairs of places, the first below the second, whose pictures are alike but not the same.

    Flat images are like nothing. Compares all pairs, a thousand rows at a time.
    """
    if not images:
        return []
    thumbnails_BX = np.stack([image.thumbnail_X for image in images])
    pairs = []
    for start in range(0, len(images), _ROWS_AT_ONCE):
        cosine = thumbnails_BX[start : start + _ROWS_AT_ONCE] @ thumbnails_BX.T
        for row, column in np.argwhere(cosine > _ALIKE).tolist():
            first = start + row
            if first < column and images[first].digest != images[column].digest:
                pairs.append((first, column))
    return pairs


def _inspect(folder: Folder, item: Item, view: View, max_pixels: int) -> ImageFacts | str:
    try:
        content = folder.read(item.path)
        size = read_size(content)
        pixels = decode_image(
            content, size=(_SIDE, _SIDE), interpolation="box", max_pixels=max_pixels, view=view
        ).numpy()
    except (DataError, ImageError) as error:
        return str(error)
    grey_HW: Grey = pixels.mean(axis=0, dtype=np.float32) / np.float32(255.0)
    contrast = float(grey_HW.std())
    return ImageFacts(
        item=item,
        size=size,
        brightness=float(grey_HW.mean()),
        contrast=contrast,
        sharpness=float(_laplacian(grey_HW).var()) / max(contrast**2, 1e-8),
        digest=hashlib.sha256(pixels.tobytes()).hexdigest(),
        thumbnail_X=_thumbnail(grey_HW, is_flat=contrast < _FLAT),
    )


def _laplacian(grey_HW: Grey) -> Grey:
    inner: Any = 4 * grey_HW[1:-1, 1:-1]
    found: Grey = inner - grey_HW[:-2, 1:-1] - grey_HW[2:, 1:-1] - grey_HW[1:-1, :-2] - grey_HW[1:-1, 2:]
    return found


def _thumbnail(grey_HW: Grey, *, is_flat: bool) -> Grey:
    cell = _SIDE // _THUMBNAIL
    small = grey_HW.reshape(_THUMBNAIL, cell, _THUMBNAIL, cell).mean(axis=(1, 3)).ravel()
    centred: Grey = (small - small.mean()).astype(np.float32)
    return np.zeros_like(centred) if is_flat else centred / max(float(np.linalg.norm(centred)), 1e-8)
