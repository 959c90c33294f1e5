"""Pictures of a tuning for its MLflow run: the affinity of layers with its levels, and the confusions."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Heatmap", "draw_affinity", "draw_confusion", "draw_figures"]

FONT_PIXELS = 15
# A matrix takes about SIDE pixels; a cell with a name beside it has room for that.
SIDE, MIN_NAMED_CELL, MAX_CELL = 520, 19, 64
GAP, TICK, BAR, FRAME = 10, 5, 22, 3
LINE = FONT_PIXELS + GAP
MAX_NUMBERS, NUM_BAR_TICKS = 12, 5
# The default takes half as long again, for a file that is a fifth smaller.
PNG_LEVEL = 1
_BLACK, _WHITE, _RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
_Place = tuple[int, int]

MAX_NAMED_LABELS = 30
MAX_NUMBERED_LABELS = 12
MAX_LABEL_CHARS = 24


def draw_figures(record: Mapping[str, Any]) -> dict[str, bytes]:
    """File name to PNG of all figures of an artifact's ``record.json``.

    Raises:
        KeyError: The record lacks something.
        ValueError: A matrix is not square.
    """
    return {
        "figures/affinity.png": draw_affinity(
            record["affinity"], record["level_starts"], record["threshold"]
        ),
        "figures/confusion.png": draw_confusion(record["confusion"], record["labels"]),
    }


def draw_affinity(
    affinity_LL: Sequence[Sequence[float]], level_starts: Sequence[int], threshold: float
) -> bytes:
    """PNG of the cosine between layers, with a frame around each level.

    Args:
        affinity_LL: Layers by layers.
        level_starts: First layer of each level.
        threshold: Affinity under which a level ends.
    """
    _check_square(affinity_LL)
    known = [value for row in affinity_LL for value in row if math.isfinite(value)]
    ends = [*level_starts[1:], len(affinity_LL)]
    return Heatmap(
        values_NN=affinity_LL,
        low=min(known, default=0.0),
        high=max(known, default=1.0),
        colors="viridis",
        title=f"{len(level_starts)} levels, affinity threshold {threshold:.3f}",
        across="layer",
        down="layer",
        bar="cosine of CLS features",
        frames=list(zip(level_starts, ends, strict=True)),
    ).to_png()


def draw_confusion(confusion_CC: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """PNG of the confusion matrix on held-out images, coloured by the share of the true class.

    Args:
        confusion_CC: Number of images by true class (rows) and predicted class (columns).
        labels: Class names.
    """
    _check_square(confusion_CC)
    has_numbers = len(labels) <= MAX_NUMBERED_LABELS
    return Heatmap(
        values_NN=[[count / max(1, sum(row)) for count in row] for row in confusion_CC],
        low=0.0,
        high=1.0,
        colors="Blues",
        title="held-out images",
        across="predicted",
        down="true",
        bar="share of the true class",
        names=[label[:MAX_LABEL_CHARS] for label in labels] if len(labels) <= MAX_NAMED_LABELS else None,
        texts_NN=[[str(count) for count in row] for row in confusion_CC] if has_numbers else None,
    ).to_png()


def _check_square(matrix: Sequence[Sequence[float]]) -> None:
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        raise ValueError(f"expected a square matrix, found rows of {[len(row) for row in matrix][:20]}")


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """A matrix and what is written around it.

    Attributes:
        values_NN: Rows from the top.
        low: Value of the first colour.
        high: Value of the last one.
        colors: A colour map of matplotlib's.
        title: Above.
        across: What the columns are.
        down: What the rows are.
        bar: What the colours mean.
        names: Of columns and rows alike; without, some of them are numbered.
        texts_NN: In the cells.
        frames: First row and end of squares on the diagonal that are framed in red.
    """

    values_NN: Sequence[Sequence[float]]
    low: float
    high: float
    colors: str
    title: str
    across: str
    down: str
    bar: str
    names: Sequence[str] | None = None
    texts_NN: Sequence[Sequence[str]] | None = None
    frames: Sequence[tuple[int, int]] = ()

    def to_png(self) -> bytes:
        """The picture; the same heat map gives the same bytes."""
        cell, ticks, numbers = self._cell(), self._ticks(), self._bar_ticks()
        side = cell * len(self.values_NN)
        widest = max(_width(text) for text in ticks.values())
        x, y = LINE + widest + TICK + GAP, GAP + LINE
        bar_x = x + side + 2 * GAP
        right = bar_x + BAR + TICK + GAP + max(map(_width, numbers)) + LINE
        below = TICK + GAP + (FONT_PIXELS if self.names is None else widest) + LINE
        picture = Image.new("RGB", (max(right, _width(self.title) + 2 * GAP), y + side + below), _WHITE)
        pen = ImageDraw.Draw(picture)
        self._draw_cells(picture, pen, (x, y), cell)
        self._draw_ticks(picture, pen, (x, y), cell, ticks)
        self._draw_bar(picture, pen, (bar_x, y), side, numbers)
        middle = y + side // 2
        _write(pen, (max(x + side // 2, GAP + _width(self.title) // 2), GAP + LINE // 2), self.title)
        _write(pen, (x + side // 2, y + side + below - LINE // 2), self.across)
        _write_up(picture, (LINE // 2, middle), self.down)
        _write_up(picture, (right - LINE // 2, middle), self.bar)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=PNG_LEVEL)
        return buffer.getvalue()

    def _cell(self) -> int:
        """Pixels of a cell's side."""
        fitting = max(1, min(MAX_CELL, SIDE // len(self.values_NN)))
        return fitting if self.names is None else max(MIN_NAMED_CELL, fitting)

    def _ticks(self) -> dict[int, str]:
        """Column, and row, to what is written there."""
        if self.names is not None:
            return {index: " ".join(name.split()) for index, name in enumerate(self.names)}
        number = len(self.values_NN)
        step = next(step for step in _steps() if number <= step * MAX_NUMBERS)
        return {index: str(index) for index in range(0, number, step)}

    def _bar_ticks(self) -> list[str]:
        return [f"{value:.3g}" for value in np.linspace(self.low, self.high, NUM_BAR_TICKS).tolist()]

    def _draw_cells(self, picture: Image.Image, pen: ImageDraw.ImageDraw, at: _Place, cell: int) -> None:
        values_NN = np.nan_to_num(np.asarray(self.values_NN, dtype=np.float64), nan=self.low)
        span = self.high - self.low
        shares_NN = np.clip((values_NN - self.low) / span, 0.0, 1.0) if span > 0 else 0.0 * values_NN
        colors_NN3 = _color_table(self.colors)[np.rint(shares_NN * 255).astype(np.uint8)]
        pixels_HW3 = colors_NN3.repeat(cell, axis=0).repeat(cell, axis=1)
        picture.paste(Image.fromarray(pixels_HW3), at)
        _outline(pen, at, (pixels_HW3.shape[1], pixels_HW3.shape[0]))
        for start, end in self.frames:
            corner, size = (at[0] + start * cell, at[1] + start * cell), (end - start) * cell
            pen.rectangle((corner, (corner[0] + size - 1, corner[1] + size - 1)), outline=_RED, width=FRAME)
        for row, texts in enumerate(self.texts_NN or ()):
            for column, text in enumerate(texts):
                is_dark = colors_NN3[row, column].mean() < 128
                place = (at[0] + column * cell + cell // 2, at[1] + row * cell + cell // 2)
                _write(pen, place, text, color=_WHITE if is_dark else _BLACK)

    def _draw_ticks(
        self, picture: Image.Image, pen: ImageDraw.ImageDraw, at: _Place, cell: int, ticks: dict[int, str]
    ) -> None:
        bottom = at[1] + cell * len(self.values_NN)
        for index, text in ticks.items():
            x, y = (start + index * cell + cell // 2 for start in at)
            pen.line((at[0] - TICK, y, at[0], y), fill=_BLACK)
            pen.line((x, bottom, x, bottom + TICK), fill=_BLACK)
            _write(pen, (at[0] - TICK - GAP // 2, y), text, anchor="rm")
            if self.names is None:
                _write(pen, (x, bottom + TICK + GAP // 2 + FONT_PIXELS // 2), text)
            else:
                _write_up(picture, (x, bottom + TICK + GAP // 2 + _width(text) // 2), text)

    def _draw_bar(
        self, picture: Image.Image, pen: ImageDraw.ImageDraw, at: _Place, side: int, numbers: list[str]
    ) -> None:
        shades_H = np.rint(np.linspace(255, 0, side)).astype(np.uint8)
        picture.paste(Image.fromarray(_color_table(self.colors)[shades_H][:, None].repeat(BAR, axis=1)), at)
        _outline(pen, at, (BAR, side))
        for index, text in enumerate(numbers):
            x, y = at[0] + BAR, at[1] + side - 1 - round(index * (side - 1) / (len(numbers) - 1))
            pen.line((x, y, x + TICK, y), fill=_BLACK)
            _write(pen, (x + TICK + GAP // 2, y), text, anchor="lm")


def _steps() -> Iterator[int]:
    """1, 2, 5, 10, 20 and so on."""
    decade = 1
    while True:
        yield from (decade, 2 * decade, 5 * decade)
        decade *= 10


def _outline(pen: ImageDraw.ImageDraw, at: _Place, size: _Place) -> None:
    pen.rectangle((at[0] - 1, at[1] - 1, at[0] + size[0], at[1] + size[1]), outline=_BLACK)


def _write(
    pen: ImageDraw.ImageDraw,
    at: _Place,
    text: str,
    *,
    anchor: str = "mm",
    color: tuple[int, int, int] = _BLACK,
) -> None:
    pen.text(at, text, font=_font(), anchor=anchor, fill=color)


def _write_up(picture: Image.Image, middle: _Place, text: str) -> None:
    """Text that is read from below."""
    width = max(1, _width(text))
    strip = Image.new("L", (width, LINE), 0)
    ImageDraw.Draw(strip).text((width // 2, LINE // 2), text, font=_font(), anchor="mm", fill=255)
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    picture.paste(_BLACK, (middle[0] - LINE // 2, middle[1] - width // 2), turned)


def _width(text: str) -> int:
    return round(_font().getlength(text))


@cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


@cache
def _color_table(name: str) -> npt.NDArray[np.uint8]:
    """256 colours."""
    import matplotlib

    table: Any = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    return np.ascontiguousarray(table)
