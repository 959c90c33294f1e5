"""Evidence of a tuning: answers on the held-out images, gathered from tensors for ``held_out.json``.

Shapes: B images, C classes, T tiles.
"""

import io
import json
from collections.abc import Iterable, Sequence

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
from ship.data.pixel_copies import pixel_digest
from ship.decision.mistakes import find_good_label, find_mistakes, find_narrow
from ship.settings.view import View

__all__ = [
    "draw_thumbnail",
    "draw_thumbnails",
    "gather_held_out",
    "rounded_rows",
    "telling_places",
]

_THUMBNAIL_PIXELS = 96
# What thumbnails leave of the file, with room for base64 and punctuation.
_MAX_ROWS_BYTES = MAX_HELD_OUT_BYTES - 2 * MAX_THUMBNAILS_BYTES
# Of a score; what surely does not fit is not even written.
_LEAST_BYTES = 5
# Of an image, beside its path and scores: digest, label and distance.
_OTHER_BYTES = 70


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
    # A probe that failed is no reason to fail: its answers are then not known.
    scores = [logits_BC]
    if probe_logits_BC is not None and bool(probe_logits_BC.isfinite().all()):
        scores.append(probe_logits_BC)
    room = _MAX_ROWS_BYTES - len(json.dumps(data.labels))
    most = max(0, room) // (_LEAST_BYTES * len(scores) * len(data.labels))
    chosen = _spread(len(split), min(len(split), MAX_IMAGES, most))
    tables = [rounded_rows(logits_BC[chosen]) for logits_BC in scores]
    lines = zip((split.paths[place] for place in chosen), *tables, strict=True)
    kept = _places_that_fit([len(json.dumps(line)) + _OTHER_BYTES for line in lines], room)
    if not kept:
        return None
    places = [chosen[place] for place in kept]
    labels_B = split.labels_B[places].tolist()
    rows, *probe_rows = (tuple(table[place] for place in kept) for table in tables)
    telling = telling_places(data.labels, labels_B, rows) if thumbnails else []
    images = ((place, split.images_B3HW[places[place]]) for place in telling)
    return HeldOut(
        labels=data.labels,
        paths=tuple(split.paths[place] for place in places),
        digests=tuple(pixel_digest(split.images_B3HW[place]) for place in places),
        labels_B=tuple(labels_B),
        logits_BC=rows,
        probe_logits_BC=probe_rows[0] if probe_rows else None,
        distances_B=None if distances_B is None else tuple(distances_B[places].tolist()),
        thumbnails=draw_thumbnails(images, data.view),
        num_images=len(split),
    )


def draw_thumbnail(image_3HW: Tensor, view: View, side: int = _THUMBNAIL_PIXELS) -> bytes:
    """JPEG of at most ``side`` pixels a side, without metadata.

    Args:
        image_3HW: uint8, RGB; of a view of several tiles ``T,3,H,W``, which are put together row by row, so
            that what two tiles share is seen twice.
        view: Gives the grid of tiles.
        side: Pixels; a picture that is smaller stays as it is.
    """
    height, width = image_3HW.shape[-2:]
    rows, columns = view.grid
    tiles_T3HW = image_3HW.reshape(rows, columns, 3, height, width)
    whole_HW3 = tiles_T3HW.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    picture = Image.fromarray(whole_HW3.contiguous().numpy())
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return content.getvalue()


def telling_places(
    labels: Sequence[str], labels_B: Sequence[int], rows: Sequence[Sequence[float]]
) -> list[int]:
    """Places of mistakes, the worst first, then of the narrowest right answers: as many as are drawn."""
    good = find_good_label(labels)
    mistakes = find_mistakes(labels_B, rows, None if good is None else labels.index(good))
    narrow = find_narrow(labels_B, rows)
    return [mistake.place for mistake in mistakes[: MAX_THUMBNAILS - len(narrow)]] + narrow


def draw_thumbnails(images: Iterable[tuple[int, Tensor]], view: View) -> dict[int, bytes]:
    """Thumbnails of images by place, as many of the first as there is room for."""
    pictures: dict[int, bytes] = {}
    room = MAX_THUMBNAILS_BYTES
    for place, image_3HW in images:
        jpeg = draw_thumbnail(image_3HW, view)
        room -= len(jpeg)
        if room < 0:
            break
        pictures[place] = jpeg
    return pictures


def _places_that_fit(sizes: list[int], room: int) -> list[int]:
    """Evenly spaced places of images whose sizes fit into the room: all of them, where they do."""
    num_kept = len(sizes)
    while num_kept:
        places = _spread(len(sizes), num_kept)
        num_bytes = sum(sizes[place] for place in places)
        if num_bytes <= room:
            return places
        num_kept = max(0, min(num_kept - 1, num_kept * room // num_bytes))
    return []


def _spread(number: int, num_kept: int) -> list[int]:
    """Evenly spaced places."""
    return [place * number // num_kept for place in range(num_kept)]


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")


def rounded_rows(logits_BC: Tensor) -> tuple[tuple[float, ...], ...]:
    """Scores to six significant digits, which a repetition in float32 gives again."""
    return tuple(tuple(map(_rounded, row)) for row in logits_BC.float().tolist())
