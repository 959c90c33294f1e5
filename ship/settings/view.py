"""A task's view: which part of a picture the network looks at, in how many tiles, and how a tile fits it.

Geometry, whole pixels in and whole pixels out, and the depth of samples. ``ship.images`` moves and scales the
pixels, tuning and serving alike.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from statistics import median
from typing import Any, Literal, NamedTuple, Self

from ship.errors import ConfigError, ImageError
from ship.settings.checks import check_settings, number, one_of

__all__ = [
    "DEFAULT_VIEW",
    "DEPTHS",
    "MAX_PIXELS",
    "MAX_TILES",
    "Bits",
    "Box",
    "Decode",
    "Fit",
    "Tile",
    "View",
    "read_max_pixels",
]

# Left, top, right and bottom in pixels; the last two are the first outside.
Box = tuple[int, int, int, int]
Fit = Literal["squash", "pad", "crop"]
Bits = Literal[8, 10, 12, 14, 16, "auto"]
Decode = Literal["full", "reduced"]

DEPTHS = (8, 10, 12, 14, 16)

MAX_TILES = 64
# Pixels of a picture, unless the environment's SHIP_MAX_PIXELS sets another limit.
MAX_PIXELS = 50_000_000
_GRID = re.compile(r"([1-9][0-9]?)x([1-9][0-9]?)")
# What ``auto`` aims at, and where it stops.
_AUTO_SHRINKING, _AUTO_ROWS = 2.0, 3
# What the decoder of JPEG can divide sides by, and how much larger than its input a tile stays then.
_REDUCTIONS, _REDUCED_SHRINKING = (8, 4, 2), 2
# Beyond this, a defect of a patch's size is less than a third of a patch wide.
_MAX_SHRINKING = 3.0


class Tile(NamedTuple):
    """One input of the network.

    Attributes:
        source: Part of the picture that it shows.
        target: Place of that part in the input; the rest is padding.
    """

    source: Box
    target: Box


@dataclass(frozen=True, kw_only=True)
class View:
    """Region of interest, tiles, fit, bits and decoding of a task's pictures; alike in tuning and serving.

    Attributes:
        crop: Region ``[x, y, width, height]`` of each picture: in pixels if a number is above 1, else in
            shares of its width and height. Left out, the whole picture.
        tiles: ``1x1``, ``2x2``, ``3x3`` or ``ROWSxCOLUMNS`` of the region, each seen at the network's full
            input; or ``auto``: as many rows and columns, at most three, as keep the median training picture
            from being shrunk to less than half. A tile costs as much as a picture.
        tile_overlap: Share of a tile's side that it has in common with the next one.
        fit: ``squash`` resizes a tile without regard to its aspect ratio, ``pad`` keeps it and fills up with
            grey, ``crop`` keeps it and cuts off what sticks out.
        bits: Bits of a sample that the camera fills in files of more than 8: 8, 10, 12, 14 or 16. ``auto``
            goes by the file's tags; without any, a dark picture is refused.
        decode: ``full``, or ``reduced``: a JPEG is decoded at a half, a fourth or an eighth of its size, if
            its sides can be divided so and each tile stays twice as large as the network's input: several
            times as fast, for pixels that differ by rounding. Other formats are decoded in full.
    """

    crop: tuple[float, float, float, float] | None = None
    tiles: str = "1x1"
    tile_overlap: float = 0.1
    fit: Fit = "squash"
    bits: Bits = "auto"
    decode: Decode = "full"

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: Lists all that are out of range.
        """
        object.__setattr__(self, "crop", _as_tuple(self.crop))
        check_settings(self, _CHECKS)
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(map(float, self.crop)))
        object.__setattr__(self, "tile_overlap", float(self.tile_overlap))

    @property
    def is_default(self) -> bool:
        """Whether it is the whole picture, squashed into one input, at its own depth, as without a view."""
        return self.is_whole and self.bits == "auto" and self.decode == "full"

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole picture, squashed into one input."""
        return self.crop is None and self.tiles == "1x1" and self.fit == "squash"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles.

        Raises:
            ValueError: They are ``auto`` and not resolved.
        """
        if self.tiles == "auto":
            raise ValueError("the tiles of view `auto` are known once the pictures' sizes are")
        rows, columns = self.tiles.split("x")
        return int(rows), int(columns)

    @property
    def num_tiles(self) -> int:
        """T, tiles of a picture; see ``grid``."""
        rows, columns = self.grid
        return rows * columns

    def resolved(self, sizes: Iterable[tuple[int, int]], input_size: tuple[int, int]) -> Self:
        """The view with a fixed grid in place of ``auto``.

        Args:
            sizes: Width and height of the pictures, by whose medians the grid is chosen; at least one.
            input_size: Height and width of the network's input.

        Raises:
            ImageError: The region is outside the median picture.
        """
        if self.tiles != "auto":
            return self
        left, top, right, bottom = self.region(_median_size(sizes))
        rows = _count(bottom - top, input_size[0])
        columns = _count(right - left, input_size[1])
        return replace(self, tiles=f"{rows}x{columns}")

    def region(self, size: tuple[int, int]) -> Box:
        """The region of interest of a picture of this width and height.

        Raises:
            ImageError: It reaches beyond the picture.
        """
        width, height = size
        if self.crop is None:
            return 0, 0, width, height
        x, y, w, h = self.crop
        if max(self.crop) <= 1.0:
            x, y, w, h = min(x * width, width - 1), min(y * height, height - 1), w * width, h * height
        left, top = round(x), round(y)
        right, bottom = max(round(x + w), left + 1), max(round(y + h), top + 1)
        if right > width or bottom > height:
            raise ImageError(
                f"{width} x {height} pixels: crop {list(self.crop)} reaches to {right} x {bottom}; this task "
                "needs pictures that hold its crop",
                "too_small",
            )
        return left, top, right, bottom

    def tiles_of(self, size: tuple[int, int], input_size: tuple[int, int]) -> list[Tile]:
        """The tiles of a picture of this width and height, row by row.

        Args:
            size: Width and height of the picture.
            input_size: Height and width of the network's input.

        Raises:
            ImageError: See ``region``.
        """
        left, top, right, bottom = self.region(size)
        rows, columns = self.grid
        return [
            _fit_box((x0, y0, x1, y1), input_size, self.fit)
            for y0, y1 in _cut(top, bottom, rows, self.tile_overlap)
            for x0, x1 in _cut(left, right, columns, self.tile_overlap)
        ]

    def reduction(self, size: tuple[int, int], input_size: tuple[int, int]) -> int:
        """What a JPEG's sides are divided by when it is decoded.

        Args:
            size: Width and height of the picture.
            input_size: Height and width of the network's input.

        Raises:
            ImageError: See ``region``.
        """
        if self.decode == "full":
            return 1
        sides = [(_sides(tile.source), _sides(tile.target)) for tile in self.tiles_of(size, input_size)]
        most = min(old / new for source, target in sides for old, new in zip(source, target, strict=True))
        fitting = (by for by in _REDUCTIONS if size[0] % by == size[1] % by == 0)
        return next((by for by in fitting if by * _REDUCED_SHRINKING <= most), 1)

    def find_shrinking(self, sizes: Iterable[tuple[int, int]], input_size: tuple[int, int]) -> str | None:
        """What is lost if the median picture is shrunk to less than a third, by either side; else None."""
        size = _median_size(sizes)
        try:
            tile = self.resolved([size], input_size).tiles_of(size, input_size)[0]
        except ImageError as error:
            return str(error)
        width, height = _sides(tile.source)
        new_width, new_height = _sides(tile.target)
        if max(width / new_width, height / new_height) <= _MAX_SHRINKING:
            return None
        what = "pictures" if self.is_whole else "parts"
        return (
            f"{what} of {width} x {height} are shrunk to {new_width} x {new_height} pixels: small defects "
            "may vanish; set a larger image_size of the backbone, or a crop or tiles in the task's view"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what views of earlier releases did not have only where it is stated."""
        values = {**asdict(self), "crop": None if self.crop is None else list(self.crop)}
        return {name: value for name, value in values.items() if (name, value) not in _LATER}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo ``to_dict``; missing keys have their defaults.

        Raises:
            ConfigError: A name is unknown, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError([f"{name}: unknown setting; known are {', '.join(known)}" for name in unknown])
        return cls(**values)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _is_crop(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, tuple) or len(value) != 4:
        return False
    if not all(type(v) in (int, float) and 0 <= v < 1e9 for v in value) or 0 in value[2:]:
        return False
    x, y, width, height = value
    return bool(max(value) > 1 or (x + width <= 1 + 1e-9 and y + height <= 1 + 1e-9))


def _is_grid(value: Any) -> bool:
    if value == "auto":
        return True
    found = _GRID.fullmatch(value) if isinstance(value, str) else None
    return found is not None and int(found[1]) * int(found[2]) <= MAX_TILES


_CHECKS = {
    "crop": (_is_crop, "[x, y, width, height] in pixels, or in shares that stay within the picture"),
    "tiles": (_is_grid, f"`auto` or ROWSxCOLUMNS such as 2x2, of at most {MAX_TILES} tiles"),
    "tile_overlap": number("from 0 to 0.5", lambda v: 0.0 <= v <= 0.5),
    "fit": one_of("squash", "pad", "crop"),
    "bits": (lambda v: v == "auto" or (type(v) is int and v in DEPTHS), "8, 10, 12, 14, 16 or `auto`"),
    "decode": one_of("full", "reduced"),
}
# Settings that earlier releases did not know, and what they did.
_LATER = (("bits", "auto"), ("decode", "full"))
DEFAULT_VIEW = View()


def read_max_pixels(environ: Mapping[str, str]) -> int:
    """``SHIP_MAX_PIXELS`` of an environment: pixels of the largest picture that is decoded.

    Raises:
        ConfigError: It is no such number.
    """
    text = environ.get("SHIP_MAX_PIXELS") or str(MAX_PIXELS)
    if not (text.isascii() and text.isdigit() and len(text) <= 11 and 0 < int(text) <= 10**10):
        raise ConfigError(
            f"SHIP_MAX_PIXELS: expected a number of pixels from 1 to {10**10}, got {text[:50]!r}"
        )
    return int(text)


def _median_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    widths, heights = zip(*sizes, strict=True)
    return round(median(widths)), round(median(heights))


def _count(side: int, input_side: int) -> int:
    """Tiles along a side, so that none is shrunk to less than half."""
    return min(_AUTO_ROWS, max(1, -int(-side // (_AUTO_SHRINKING * input_side))))


def _cut(start: int, stop: int, number: int, overlap: float) -> list[tuple[int, int]]:
    """Equal parts of a side, each with an overlap with the next; the last one ends where the side does."""
    side = stop - start
    # No pixel is between two parts, also where there is no overlap and the parts are not of whole pixels.
    fewest = -(-side // number)
    part = max(1, fewest, min(side, round(side / (number - (number - 1) * overlap))))
    step = (side - part) / max(1, number - 1)
    return [(start + round(place * step), start + round(place * step) + part) for place in range(number)]


def _fit_box(box: Box, input_size: tuple[int, int], fit: Fit) -> Tile:
    (height, width), (box_width, box_height) = input_size, _sides(box)
    if fit == "pad":
        scale = min(width / box_width, height / box_height)
        left, right = _centred(width, round(box_width * scale))
        top, bottom = _centred(height, round(box_height * scale))
        return Tile(source=box, target=(left, top, right, bottom))
    if fit == "crop":
        scale = min(box_width / width, box_height / height)
        left, right = _centred(box_width, round(width * scale))
        top, bottom = _centred(box_height, round(height * scale))
        box = box[0] + left, box[1] + top, box[0] + right, box[1] + bottom
    return Tile(source=box, target=(0, 0, width, height))


def _centred(side: int, part: int) -> tuple[int, int]:
    part = max(1, min(side, part))
    start = (side - part) // 2
    return start, start + part


def _sides(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]
