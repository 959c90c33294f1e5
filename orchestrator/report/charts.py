"""SVG drawings of a report, which stand in its page: accuracy as a bar, and a learning curve.

Colours are those of the page, by class names. Numbers only: no text of others gets in here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["draw_accuracy", "draw_learning_curve", "place_of"]

BAR_WIDTH, BAR_HEIGHT = 120, 14
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 190, 44, 34, 12
_RIGHT = 12


def draw_accuracy(low: float, accuracy: float, high: float, probe: float | None) -> str:
    """A line from 0 to 1 with the interval as a bar, the accuracy as a tick and the probe's as a ring."""
    middle = BAR_HEIGHT / 2
    x_low, x_high, x = (_round(BAR_WIDTH * share) for share in (low, high, accuracy))
    ring = ""
    if probe is not None:
        ring = f'<circle class="probe" cx="{_round(BAR_WIDTH * probe):g}" cy="{middle:g}" r="4"/>'
    return (
        f'<svg class="bar" viewBox="-5 0 {BAR_WIDTH + 10} {BAR_HEIGHT}" width="{BAR_WIDTH + 10}" '
        f'height="{BAR_HEIGHT}" aria-hidden="true"><path class="axis" d="M0 {middle:g}h{BAR_WIDTH}"/>'
        f'<rect class="interval" x="{x_low:g}" y="3" width="{_round(x_high - x_low):g}" height="8"/>{ring}'
        f'<path class="mark" d="M{x:g} 1v12"/></svg>'
    )


def draw_learning_curve(probe: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> str:
    """Held-out accuracy by training images, on a logarithmic axis: measured points and what is expected.

    Args:
        probe: ``images`` and ``accuracy`` of the linear probe, in rising order.
        expected: The same of the artifact, from what it was tuned with on.
    """
    numbers = sorted({point["images"] for point in (*probe, *expected)})
    accuracies = [point["accuracy"] for point in (*probe, *expected)]
    floor = max(0.0, math.floor(10 * min(accuracies) - 0.5) / 10)

    def place(point: Mapping[str, Any]) -> tuple[float, float]:
        return place_of(point["images"], point["accuracy"], numbers[0], numbers[-1], floor)

    def line(points: Sequence[Mapping[str, Any]]) -> str:
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in map(place, points))

    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Held-out accuracy by number of training images</title>",
    ]
    for step in range(round(10 * floor), 11, 2 if floor < 0.6 else 1):
        _, y = place_of(numbers[0], step / 10, numbers[0], numbers[-1], floor)
        parts.append(f'<path class="grid" d="M{LEFT} {y:g}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y:g}" dy="0.35em" text-anchor="end">{step / 10:.1f}</text>')
    for number in numbers:
        x, _ = place_of(number, floor, numbers[0], numbers[-1], floor)
        parts.append(f'<text x="{x:g}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 3}" text-anchor="middle">training images</text>'
    )
    parts.append(f'<path class="expected" d="{line(expected)}"/><path class="line" d="{line(probe)}"/>')
    for name, points in (("probe", probe), ("own", expected[:1]), ("guess", expected[1:])):
        for point in points:
            x, y = place(point)
            said = f"{point['images']} images: {point['accuracy']:.3f}"
            parts.append(f'<circle class="{name}" cx="{x:g}" cy="{y:g}" r="4"><title>{said}</title></circle>')
    return "".join((*parts, "</svg>"))


def place_of(number: float, accuracy: float, fewest: float, most: float, floor: float) -> tuple[float, float]:
    """Pixels from the left and the top of a point of a learning curve."""
    wide, high = WIDTH - LEFT - _RIGHT - 20, HEIGHT - TOP - BOTTOM
    share = math.log(number / fewest) / math.log(most / fewest) if most > fewest else 0.0
    level = (accuracy - floor) / (1.0 - floor) if floor < 1.0 else 1.0
    return _round(LEFT + 10 + wide * share), _round(TOP + high * (1.0 - level))


def _round(value: float) -> float:
    return round(value, 1)
