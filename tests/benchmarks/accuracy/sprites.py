"""Pictures of one shape by the factors of dSprites."""

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["draw_sprite"]

_PIXELS = 64


def draw_sprite(*, shape: int, scale: int, orientation: int, x: int, y: int) -> Image.Image:
    """A square, an ellipse or a heart, 64x64 pixels; arguments are places in the factors' ranges."""
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    outline_P2 = (
        np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.8,
        np.stack([1.1 * np.cos(t), 0.7 * np.sin(t)], axis=1),
        np.stack(
            [
                np.sin(t) ** 3,
                -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16,
            ],
            axis=1,
        ),
    )[shape]
    # Four times as large, then shrunk: smooth edges show a turn of nine degrees.
    zoom, turn = 4, 2 * np.pi * orientation / 40
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    radius = 9.0 * (0.5 + 0.1 * scale)
    centre = np.array([_PIXELS / 4 + _PIXELS / 2 * place / 31 for place in (x, y)])
    points = (outline_P2 @ rotation * radius + centre) * zoom
    canvas = Image.new("L", (_PIXELS * zoom, _PIXELS * zoom))
    ImageDraw.Draw(canvas).polygon([(float(px), float(py)) for px, py in points], fill=255)
    return canvas.resize((_PIXELS, _PIXELS), Image.Resampling.BOX)
