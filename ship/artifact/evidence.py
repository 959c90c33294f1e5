"""Evidence of a tuning: answers on the held-out images, gathered from tensors for ``held_out.json``.

Shapes: B images, C classes, T tiles.
"""

import hashlib
import io
import json

from PIL import Image
from torch import Tensor

from ship.artifact.held_out import (
    MAX_HELD_OUT_BYTES,
    MAX_IMAGES,
    MAX_THUMBNAILS,
    MAX_THUMBNAILS_BYTES,
    HeldOut,
)
from ship.data import TaskData
from ship.decision.mistakes import find_good_label, find_mistakes, find_narrow
from ship.settings.view import View

__all__ = ["draw_thumbnail", "gather_held_out", "pixel_digest"]

_THUMBNAIL_PIXELS = 96
_NUM_NARROW = 16
# What thumbnails leave of the file, with room for base64 and punctuation.
_MAX_ROWS_BYTES = MAX_HELD_OUT_BYTES - 2 * MAX_THUMBNAILS_BYTES


def gather_held_out(
    data: TaskData,
    logits_BC: Tensor,
    probe_logits_BC: Tensor | None = None,
    distances_B: Tensor | None = None,
    *,
    thumbnails: bool = True,
) -> HeldOut | None:
    """Answers on the held-out images of a task; None if its class names alone are too long to keep any.

    Args:
        data: Gives the held-out images.
        logits_BC: Class scores of a prompt on the CPU.
        probe_logits_BC: The linear probe's, if they are known.
        distances_B: Distances from the training images, if they were measured.
        thumbnails: Whether small pictures of mistakes, and of answers with the least lead, are kept.
    """
    split = data.held_out
    rows = _rounded_rows(logits_BC)
    probe_rows = None if probe_logits_BC is None else _rounded_rows(probe_logits_BC)
    sizes = [len(json.dumps(line)) + 50 for line in zip(split.paths, rows, probe_rows or rows, strict=True)]
    places = _places_that_fit(sizes, _MAX_ROWS_BYTES - len(json.dumps(data.labels)))
    if not places:
        return None
    images_B3HW, labels_B = split.images_B3HW[places], split.labels_B[places].tolist()
    kept_rows = [rows[place] for place in places]
    return HeldOut(
        labels=data.labels,
        paths=tuple(split.paths[place] for place in places),
        digests=tuple(map(pixel_digest, images_B3HW)),
        labels_B=tuple(labels_B),
        logits_BC=tuple(kept_rows),
        probe_logits_BC=None if probe_rows is None else tuple(probe_rows[place] for place in places),
        distances_B=None if distances_B is None else tuple(map(_rounded, distances_B[places].tolist())),
        thumbnails=_draw_telling(data, labels_B, kept_rows, images_B3HW) if thumbnails else {},
        num_images=len(split),
    )


def pixel_digest(image_3HW: Tensor) -> str:
    """See ``HeldOut.digests``."""
    return hashlib.sha256(image_3HW.contiguous().numpy().data).hexdigest()[:32]


def draw_thumbnail(image_3HW: Tensor, view: View) -> bytes:
    """JPEG of at most 96 pixels a side, without metadata.

    Args:
        image_3HW: uint8, RGB; of a view of several tiles ``T,3,H,W``, which are put together row by row, so
            that what two tiles share is seen twice.
        view: Gives the grid of tiles.
    """
    height, width = image_3HW.shape[-2:]
    rows, columns = view.grid
    tiles_T3HW = image_3HW.reshape(rows, columns, 3, height, width)
    whole_HW3 = tiles_T3HW.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    picture = Image.fromarray(whole_HW3.contiguous().numpy())
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return content.getvalue()


def _draw_telling(
    data: TaskData, labels_B: list[int], rows: list[tuple[float, ...]], images_B3HW: Tensor
) -> dict[int, bytes]:
    """Thumbnails of mistakes, the worst first, and of the narrowest right answers, while there is room."""
    good = find_good_label(data.labels)
    mistakes = find_mistakes(labels_B, rows, None if good is None else data.labels.index(good))
    narrow = find_narrow(labels_B, rows, _NUM_NARROW)
    pictures: dict[int, bytes] = {}
    room = MAX_THUMBNAILS_BYTES
    for place in [mistake.place for mistake in mistakes[: MAX_THUMBNAILS - len(narrow)]] + narrow:
        jpeg = draw_thumbnail(images_B3HW[place], data.view)
        room -= len(jpeg)
        if room < 0:
            break
        pictures[place] = jpeg
    return pictures


def _places_that_fit(sizes: list[int], room: int) -> list[int]:
    """Evenly spaced places of images whose sizes fit into the room: all of them, where they do."""
    num_kept = min(len(sizes), MAX_IMAGES)
    while num_kept:
        places = [number * len(sizes) // num_kept for number in range(num_kept)]
        if sum(sizes[place] for place in places) <= room:
            return places
        num_kept = num_kept * 9 // 10
    return []


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")


def _rounded_rows(logits_BC: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(_rounded, row)) for row in logits_BC.float().tolist())
