"""Picture of an explanation: the image twice under its attention, with the prompt and on the bare backbone.

Both maps share one scale from 0 to the maximum of both, so that they can be compared.

Shapes: H,W pixels, Y,X patches.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from orchestrator.serve.engine_api import Explanation, Image
from orchestrator.serve.ingress.tiled_map import Map

__all__ = ["draw_explanation"]

# Dark violet to yellow, even in lightness: five points of matplotlib's "inferno".
_COLOURS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=float)
_LEAST_SIDE, _MARGIN, _LINE, _BAR = 320, 12, 18, 14
_OPACITY = 0.65
_FONT_SIZE = 13


def draw_explanation(image_3HW: Image, found: Explanation, prompted_YX: Map, bare_YX: Map) -> bytes:
    """PNG of two panels, a scale and captions.

    Args:
        image_3HW: Region of the picture that the maps are of.
        found: Explanation whose numbers are written.
        prompted_YX: Map with the prompt.
        bare_YX: Map on the bare backbone.
    """
    height, width = image_3HW.shape[1:]
    zoom = max(1, -(-_LEAST_SIDE // min(height, width)))
    size = width * zoom, height * zoom
    top = max(float(prompted_YX.max()), float(bare_YX.max())) or 1.0
    picture = PillowImage.new(
        "RGB", (2 * size[0] + 3 * _MARGIN, size[1] + 3 * _MARGIN + _BAR + 4 * _LINE), "white"
    )
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE)
    panels = (
        (prompted_YX, "with the prompt", found.entropy),
        (bare_YX, "bare backbone", found.bare_entropy),
    )
    pen.text((_MARGIN, _MARGIN), f"{found.task}, version {found.version}", fill="black", font=font)
    for number, (map_YX, title, entropy) in enumerate(panels):
        left, upper = _MARGIN + number * (size[0] + _MARGIN), _MARGIN + _LINE
        pen.text((left, upper), f"{title}; entropy {entropy:.3f}", fill="black", font=font)
        picture.paste(_overlay(image_3HW, map_YX / top, size), (left, upper + _LINE))
    upper = 2 * _MARGIN + 2 * _LINE + size[1]
    scale = _colour(np.linspace(0.0, 1.0, picture.width - 2 * _MARGIN)[None].repeat(_BAR, axis=0))
    picture.paste(PillowImage.fromarray(scale), (_MARGIN, upper))
    legend = f"share of a patch in the last block's CLS attention: 0 to {top:.4f}"
    pen.text((_MARGIN, upper + _BAR), legend, fill="black", font=font)
    moved = f"{found.distance:.1%} of the attention goes elsewhere with the prompt"
    pen.text((_MARGIN, upper + _BAR + _LINE), moved, fill="black", font=font)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _overlay(image_3HW: Image, map_YX: Map, size: tuple[int, int]) -> PillowImage.Image:
    photo = PillowImage.fromarray(image_3HW.transpose(1, 2, 0).copy()).resize(size)
    # Blocks, not a smooth surface: there is one number a patch, and nothing in between.
    heat = PillowImage.fromarray(_colour(map_YX)).resize(size, PillowImage.Resampling.NEAREST)
    return PillowImage.blend(photo.convert("L").convert("RGB"), heat, _OPACITY)


def _colour(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """RGB colours of values from 0 to 1."""
    at = np.linspace(0.0, 1.0, len(_COLOURS))
    channels = [np.interp(values, at, _COLOURS[:, channel]) for channel in range(3)]
    rgb: NDArray[np.uint8] = np.stack(channels, axis=-1).round().astype(np.uint8)
    return rgb
