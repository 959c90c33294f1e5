"""Pictures drawn at random against a second decoder: read right, or refused by name; never a traceback.

Examples are the same in each run.
"""

import io
from typing import Any

import imagecodecs
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ship.errors import ImageError
from ship.settings.view import DEFAULT_VIEW, DEPTHS, View
from tests.unit.ship.images.factory import Array, chunk, png, seen_by_tifffile, shown, tiff

# Of 16-bit colours, whose lower bits are cut off before alpha is laid on white.
TOLERANCE = 2.6
LIMITED = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
KINDS = {"unsupported", "corrupt", "too_large", "too_costly"}
VIEWS = st.sampled_from([DEFAULT_VIEW, *(View(bits=bits) for bits in DEPTHS)])
NOTES = st.lists(
    st.builds(
        chunk,
        st.sampled_from(
            [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"pHYs", b"prVt", b"acTL", b"tIME"]
        ),
        st.binary(max_size=60),
    ),
    max_size=4,
)


@st.composite
def samples(draw: st.DrawFn, channels: st.SearchStrategy[int], bits: int, dtype: Any) -> Array:
    """White, black and noise of any size; opaque, transparent or neither."""
    height, width, number = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(channels)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    values = random.integers(0, 2**bits, (height, width, number)).astype(dtype)
    values[0, 0] = 2**bits - 1
    if number in (2, 4) and (alpha := draw(st.sampled_from([None, 0, 2**bits - 1]))) is not None:
        values[..., -1] = alpha
    return values[..., 0] if number == 1 else values


def see(content: bytes, view: View = DEFAULT_VIEW) -> Array | None:
    """The pixels; None if the picture is refused by name."""
    try:
        return shown(content, view)
    except ImageError as error:
        refused = error
    assert refused.kind in KINDS
    assert len(str(refused)) > 20
    return None


def on_white(values: Array, num_colours: int) -> Array:
    """Colours of 0 to 1 and their alpha, if any, as RGB of 0 to 255."""
    colours = np.broadcast_to(values[..., :num_colours], (*values.shape[:2], 3))
    alpha = values[..., num_colours, None] if values.shape[-1] > num_colours else np.ones(1)
    alpha = alpha if alpha.any() else np.ones(1)
    return (colours * alpha + 1 - alpha) * 255


@LIMITED
@given(data=st.data(), depth=st.sampled_from([8, 16]), interlaced=st.booleans(), notes=NOTES)
def test_pngs(data: st.DataObject, depth: int, interlaced: bool, notes: list[bytes]) -> None:
    drawn = data.draw(samples(st.integers(1, 4), depth, np.uint16))
    channels = 1 if drawn.ndim == 2 else drawn.shape[-1]
    content = png(drawn, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], interlaced=interlaced, extra=notes)
    found = see(content)
    assert found is not None, "notes are no cause for a refusal"
    second = imagecodecs.png_decode(png(drawn, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels]))
    values = second.reshape(*drawn.shape[:2], channels) / (2**depth - 1)
    assert np.abs(found - on_white(values, 3 if channels > 2 else 1)).max() <= TOLERANCE


@LIMITED
@given(data=st.data(), bits=st.integers(1, 16), view=VIEWS)
def test_depths(data: st.DataObject, bits: int, view: View) -> None:
    """By the stated bits, or refused; without any, by the whole range."""
    drawn = data.draw(samples(st.sampled_from([1, 3]), bits, np.uint16))
    as_tiff = data.draw(st.booleans())
    content = tiff(drawn) if as_tiff else png(drawn, 16, 0 if drawn.ndim == 2 else 2)
    found = see(content, view)
    stated = 16 if view.bits == "auto" else view.bits
    if bits > stated or (view.bits == "auto" and bits <= 14):
        assert found is None
    else:
        assert found is not None
        expected = on_white(drawn.reshape(*drawn.shape[:2], -1) / (2**stated - 1), min(3, drawn.ndim * 2 - 3))
        assert np.abs(found - expected).max() <= TOLERANCE


PHOTOMETRICS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4}
TYPES = [
    (bool, 1),
    (np.uint8, 8),
    (np.int8, 7),
    (np.uint16, 16),
    (np.int16, 15),
    (np.uint32, 16),
    (np.int32, 16),
]


@LIMITED
@given(data=st.data(), kind=st.sampled_from([*TYPES, (np.float16, 1), (np.float32, 1), (np.float64, 1)]))
def test_tiffs(data: st.DataObject, kind: tuple[Any, int]) -> None:
    dtype, bits = kind
    photometric, colours = data.draw(st.sampled_from(list(PHOTOMETRICS.items())))
    extra = data.draw(st.lists(st.sampled_from(["unassalpha", "assocalpha", "unspecified"]), max_size=2))
    drawn = data.draw(samples(st.just(colours + len(extra)), bits, dtype))
    compression = data.draw(st.sampled_from([None, "lzw", "zlib", "packbits", "zstd", "lzma"]))
    is_apart = drawn.ndim == 3 and data.draw(st.booleans())
    content = tiff(
        np.moveaxis(drawn, -1, 0) if is_apart else drawn,
        photometric=photometric,
        extrasamples=extra or None,
        compression=compression,
        planarconfig=None if drawn.ndim == 2 else "separate" if is_apart else "contig",
        predictor=(compression in ("lzw", "zlib") and dtype is not bool and data.draw(st.booleans())) or None,
        byteorder=data.draw(st.sampled_from("<>")),
        bigtiff=data.draw(st.booleans()),
        tile=data.draw(st.sampled_from([None, (16, 16)])),
    )
    found = see(content)
    if found is not None:
        assert np.abs(found - seen_by_tifffile(content)).max() <= TOLERANCE


def files() -> st.SearchStrategy[bytes]:
    """Small files of every format."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8))
    contents = []
    for format_, mode, how in (
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "P", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "I;16", {"compression": "tiff_adobe_deflate"}),
    ):
        file = io.BytesIO()
        drawn = (
            Image.fromarray(np.asarray(picture)[..., 0].astype(np.uint16) * 257) if mode == "I;16" else None
        )
        (drawn or picture.convert(mode)).save(file, format_, **how)
        contents.append(file.getvalue())
    return st.sampled_from(contents)


@settings(parent=LIMITED, max_examples=200)
@given(
    content=files(),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    kept=st.floats(0.05, 1),
    view=VIEWS,
)
def test_damaged_files_are_seen_or_refused_by_name(
    content: bytes, changes: list[tuple[float, int]], kept: float, view: View
) -> None:
    broken = bytearray(content)
    for share, value in changes:
        broken[int(share * (len(broken) - 1))] = value
    found = see(bytes(broken[: max(1, int(kept * len(broken)))]), view)
    assert found is None or found.dtype == np.uint8
