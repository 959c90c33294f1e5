"""SVG figures of a tuning for its MLflow run: the affinity of layers with its levels, and the confusions.

Each is one file that refers to no other. Class names are foreign data: all text is escaped.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt

__all__ = ["HeatMap", "draw_affinity", "draw_confusion", "draw_figures"]

# Equally spaced colours from low to high: of matplotlib's viridis, and of ColorBrewer's Blues.
VIRIDIS = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725")
BLUES = ("#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
UNKNOWN_COLOR = "#bbbbbb"
NUM_SHADES = 256
# Pixels. A matrix takes about SIDE; a cell with a name beside it has room for that.
FONT, GAP, TICK, BAR = 13, 10, 5, 20
LINE = FONT + GAP
SIDE, MIN_NAMED_CELL, MAX_CELL = 520, 17, 64
MAX_NUMBERS, NUM_BAR_TICKS = 12, 5
MAX_NAMED_LABELS, MAX_NUMBERED_LABELS, MAX_LABEL_CHARS = 30, 12, 24


def draw_figures(record: Mapping[str, Any]) -> dict[str, bytes]:
    """File name to SVG of all figures of an artifact's ``record.json``; an import has no affinity.

    Raises:
        KeyError: The record lacks something.
        ValueError: A matrix is not square.
    """
    figures = {}
    if "affinity" in record:
        affinity = draw_affinity(record["affinity"], record["level_starts"], record["threshold"])
        figures["figures/affinity.svg"] = affinity
    if "confusion" in record:
        figures["figures/confusion.svg"] = draw_confusion(record["confusion"], record["labels"])
    return figures


def draw_affinity(
    affinity_LL: Sequence[Sequence[float]], level_starts: Sequence[int], threshold: float
) -> bytes:
    """SVG of the cosine between layers, with a frame around each level.

    Args:
        affinity_LL: Layers by layers.
        level_starts: First layer of each level.
        threshold: Affinity under which a level ends.
    """
    _check_square(affinity_LL)
    known = [value for row in affinity_LL for value in row if math.isfinite(value)]
    ends = [*level_starts[1:], len(affinity_LL)]
    return HeatMap(
        values_NN=affinity_LL,
        low=min(known, default=0.0),
        high=max(known, default=1.0),
        colors=VIRIDIS,
        title=f"Affinity of layers: {len(level_starts)} levels, threshold {threshold:.3f}",
        across="layer",
        down="layer",
        bar="cosine of CLS features",
        frames=list(zip(level_starts, ends, strict=True)),
    ).to_svg()


def draw_confusion(confusion_CC: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """SVG of the confusion matrix on held-out images, coloured by the share of the true class.

    Args:
        confusion_CC: Number of images by true class (rows) and predicted class (columns).
        labels: Class names.
    """
    _check_square(confusion_CC)
    totals = [max(1, sum(row)) for row in confusion_CC]
    has_numbers = len(labels) <= MAX_NUMBERED_LABELS
    return HeatMap(
        values_NN=[[count / total for count in row] for row, total in zip(confusion_CC, totals, strict=True)],
        low=0.0,
        high=1.0,
        colors=BLUES,
        title="Confusion matrix on held-out images",
        across="predicted",
        down="true",
        bar="share of the true class",
        names=[label[:MAX_LABEL_CHARS] for label in labels] if len(labels) <= MAX_NAMED_LABELS else None,
        texts_NN=[[str(count) for count in row] for row in confusion_CC] if has_numbers else None,
    ).to_svg()


def _check_square(matrix: Sequence[Sequence[float]]) -> None:
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        raise ValueError(f"expected a square matrix, found rows of {[len(row) for row in matrix][:20]}")


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """A square matrix drawn in colours, with its axes and a colour bar.

    Attributes:
        values_NN: Rows from the top; what is not finite is gray.
        low: Value of the first colour.
        high: Value of the last colour.
        colors: Equally spaced colours from low to high, ``#rrggbb``.
        title: Text above, and the title for screen readers.
        across: Name of the horizontal axis.
        down: Name of the vertical axis.
        bar: Name of the quantity in colours.
        names: Names of columns and rows alike; without, some of them are numbered.
        texts_NN: Texts in the cells.
        frames: First row and end of squares on the diagonal that are framed in red.
    """

    values_NN: Sequence[Sequence[float]]
    low: float
    high: float
    colors: Sequence[str]
    title: str
    across: str
    down: str
    bar: str
    names: Sequence[str] | None = None
    texts_NN: Sequence[Sequence[str]] | None = None
    frames: Sequence[tuple[int, int]] = ()

    def to_svg(self) -> bytes:
        """The picture; the same heat map gives the same bytes."""
        cell, ticks, numbers = self._cell(), self._ticks(), self._bar_ticks()
        side = cell * len(self.values_NN)
        widest = max(map(_width, ticks.values()))
        x, y = LINE + widest + TICK + GAP, GAP + LINE
        bar_x = x + side + 2 * GAP
        right = bar_x + BAR + TICK + GAP + max(map(_width, numbers)) + LINE
        bottom = y + side + TICK + GAP + (FONT if self.names is None else widest) + LINE
        # The title starts at the left: a long one needs no more room than a picture has.
        width = max(right, _width(self.title) + 2 * GAP)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom}" viewBox="0 0 {width} '
            f'{bottom}" role="img" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" '
            f'font-size="{FONT}">',
            f"<title>{_clean(self.title)}</title>",
            f"<desc>{_clean(f'{self.down} from the top, {self.across} from the left; {self.bar}')}</desc>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            _text(GAP, GAP + LINE // 2, self.title, anchor="start"),
            *self._draw_cells(x, y, cell),
            *self._draw_ticks(x, y, cell, ticks),
            *self._draw_bar(bar_x, y, side, numbers),
            _text(x + side // 2, bottom - LINE // 2, self.across),
            _text(LINE // 2, y + side // 2, self.down, turned=True),
            _text(right - LINE // 2, y + side // 2, self.bar, turned=True),
            "</svg>",
        ]
        return ("\n".join(parts) + "\n").encode()

    def _cell(self) -> int:
        """Pixels of a cell's side."""
        fitting = max(1, min(MAX_CELL, SIDE // len(self.values_NN)))
        return fitting if self.names is None else max(MIN_NAMED_CELL, fitting)

    def _ticks(self) -> dict[int, str]:
        """Text of a tick by column, and by row."""
        if self.names is not None:
            return dict(enumerate(self.names))
        number = len(self.values_NN)
        step = next(step for step in _steps() if number <= step * MAX_NUMBERS)
        return {index: str(index) for index in range(0, number, step)}

    def _bar_ticks(self) -> list[str]:
        step = (self.high - self.low) / (NUM_BAR_TICKS - 1)
        return [f"{self.low + index * step:.3g}" for index in range(NUM_BAR_TICKS)]

    def _draw_cells(self, x: int, y: int, cell: int) -> Iterator[str]:
        """One path for each colour: a matrix of a thousand classes is mostly of one."""
        shades_NN, colors = self._shades(), [*_interpolate(self.colors), UNKNOWN_COLOR]
        background = int(np.bincount(shades_NN.ravel()).argmax())
        side = len(shades_NN)
        yield f'<g transform="translate({x} {y}) scale({cell})" shape-rendering="crispEdges">'
        yield f'<rect width="{side}" height="{side}" fill="{colors[background]}"/>'
        for shade in sorted(set(np.unique(shades_NN).tolist()) - {background}):
            cells = "".join(f"M{column} {row}h1v1h-1z" for row, column in np.argwhere(shades_NN == shade))
            yield f'<path fill="{colors[shade]}" d="{cells}"/>'
        yield "</g>"
        yield _frame(x, y, cell * side, cell * side, "#000000", 1)
        for start, end in self.frames:
            yield _frame(x + start * cell, y + start * cell, *2 * ((end - start) * cell,), "#ff0000", 3)
        for row, texts in enumerate(self.texts_NN or ()):
            for column, text in enumerate(texts):
                fill = "#ffffff" if _is_dark(colors[shades_NN[row, column]]) else "#000000"
                yield _text(x + column * cell + cell // 2, y + row * cell + cell // 2, text, fill=fill)

    def _draw_ticks(self, x: int, y: int, cell: int, ticks: Mapping[int, str]) -> Iterator[str]:
        bottom, is_named = y + cell * len(self.values_NN), self.names is not None
        for index, text in ticks.items():
            middle = index * cell + cell // 2
            yield f'<path stroke="#000000" d="M{x - TICK} {y + middle}h{TICK}M{x + middle} {bottom}v{TICK}"/>'
            yield _text(x - TICK - GAP // 2, y + middle, text, anchor="end")
            below = bottom + TICK + GAP // 2 + (0 if is_named else FONT // 2)
            yield _text(x + middle, below, text, anchor="end" if is_named else "middle", turned=is_named)

    def _draw_bar(self, x: int, y: int, side: int, numbers: Sequence[str]) -> Iterator[str]:
        name, last = f"scale-{self.colors[0][1:]}", len(self.colors) - 1
        yield f'<linearGradient id="{name}" x1="0" y1="1" x2="0" y2="0">'
        for index, color in enumerate(self.colors):
            yield f'<stop offset="{index / last:.3g}" stop-color="{color}"/>'
        yield "</linearGradient>"
        yield f'<rect x="{x}" y="{y}" width="{BAR}" height="{side}" fill="url(#{name})"/>'
        yield _frame(x, y, BAR, side, "#000000", 1)
        for index, text in enumerate(numbers):
            height = y + side - round(index * side / (len(numbers) - 1))
            yield f'<path stroke="#000000" d="M{x + BAR} {height}h{TICK}"/>'
            yield _text(x + BAR + TICK + GAP // 2, height, text, anchor="start")

    def _shades(self) -> npt.NDArray[np.int16]:
        """Number of each cell's colour; ``NUM_SHADES`` for what is not a number."""
        values_NN, span = np.asarray(self.values_NN, dtype=np.float64), self.high - self.low
        shares_NN = np.clip((values_NN - self.low) / span, 0.0, 1.0) if span > 0 else 0.0 * values_NN
        return np.nan_to_num(np.rint(shares_NN * (NUM_SHADES - 1)), nan=NUM_SHADES).astype(np.int16)


def _interpolate(colors: Sequence[str]) -> list[str]:
    """``NUM_SHADES`` colours from the first to the last."""
    points, at = np.linspace(0.0, len(colors) - 1, NUM_SHADES), range(len(colors))
    channels = [np.interp(points, at, channel) for channel in zip(*map(_channels, colors), strict=True)]
    return ["#" + "".join(f"{round(value):02x}" for value in color) for color in zip(*channels, strict=True)]


def _steps() -> Iterator[int]:
    """1, 2, 5, 10, 20 and so on."""
    decade = 1
    while True:
        yield from (decade, 2 * decade, 5 * decade)
        decade *= 10


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _is_dark(color: str) -> bool:
    return sum(_channels(color)) < 3 * 128


def _frame(x: int, y: int, width: int, height: int, color: str, line: int) -> str:
    place = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    return f'<rect {place} fill="none" stroke="{color}" stroke-width="{line}"/>'


def _text(
    x: int, y: int, text: str, *, anchor: str = "middle", fill: str = "#000000", turned: bool = False
) -> str:
    """Text with its middle line at ``y``; ``turned`` is read from below."""
    place = f'transform="translate({x} {y}) rotate(-90)"' if turned else f'x="{x}" y="{y}"'
    return f'<text {place} dy="0.35em" text-anchor="{anchor}" fill="{fill}">{_clean(text)}</text>'


def _clean(text: str) -> str:
    """Text for XML, which takes neither markup nor control characters."""
    plain = " ".join(text.split())
    return escape("".join(char if char.isprintable() else "\ufffd" for char in plain))


def _width(text: str) -> int:
    """About as wide as the text is in pixels: the font is the viewer's."""
    return round(sum(1.0 if east_asian_width(char) in "WF" else 0.62 for char in text) * FONT)
