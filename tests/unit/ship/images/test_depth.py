"""Depth of deep samples: stated by the task or by tags, never guessed from a picture of a task."""

import io

import numpy as np
import pytest
from PIL import Image

from ship.errors import ConfigError, ImageError
from ship.images import decode_image, read_image
from ship.settings.view import DEFAULT_VIEW, DEPTHS, View
from tests.unit.ship.images.factory import Array, chunk, png, shown, smooth, tiff

# PNG's colour type by number of channels.
COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}


def samples_of(bits: int, channels: int = 1) -> Array:
    """Samples that fill these bits; alpha is opaque."""
    samples = smooth(20, 30, channels, 2**bits - 1)
    samples[-1, -1] = 2**bits - 1
    if channels in (2, 4):
        samples[..., -1] = 65535
    return samples


def expected(samples: Array, bits: int) -> Array:
    planes = samples.reshape(*samples.shape[:2], -1)
    colours = planes[..., :3] if planes.shape[-1] >= 3 else planes[..., :1]
    return np.broadcast_to(colours / (2**bits - 1) * 255, (*samples.shape[:2], 3))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", DEPTHS)
def test_stated_bits_of_pngs(bits: int, channels: int, interlaced: bool) -> None:
    samples = samples_of(bits, channels)
    found = shown(png(samples, 16, COLOUR[channels], interlaced=interlaced), View(bits=bits))
    # Colours of full depth lose their lower bits, as ever.
    assert np.abs(found - expected(samples, bits)).max() <= (1.0 if bits == 16 else 0.51)


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_stated_bits_of_tiffs(bits: int, channels: int, order: str, compression: str | None) -> None:
    samples = samples_of(bits, channels).astype(np.uint16)
    how = {1: {}, 3: {"photometric": "rgb"}, 4: {"photometric": "rgb", "extrasamples": ["unassalpha"]}}[
        channels
    ]
    content = tiff(samples, byteorder=order, compression=compression, **how)
    assert np.abs(shown(content, View(bits=bits)) - expected(samples, bits)).max() <= 0.51


def test_stated_bits_of_inverted_signed_and_long_samples() -> None:
    samples = samples_of(12)
    for dtype, how in (
        (np.uint16, {"photometric": "miniswhite"}),
        (np.int16, {}),
        (np.uint32, {}),
        (np.int32, {}),
    ):
        content = tiff(samples.astype(dtype), **how)
        turned = 4095 - samples if how else samples
        assert np.abs(shown(content, View(bits=12)) - expected(turned, 12)).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_sample_above_the_stated_bits_is_refused(channels: int) -> None:
    samples = samples_of(12, channels)
    samples[3, 3] = 4096
    with pytest.raises(ImageError, match="found a sample of 4096, above the 4095 of 12 bits") as caught:
        shown(png(samples, 16, COLOUR[channels]), View(bits=12))
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_dark_samples_without_a_tag_are_asked_about(bits: int, channels: int) -> None:
    content = png(samples_of(bits, channels), 16, COLOUR[channels])
    with pytest.raises(ImageError, match=r"no tag .* set `bits` in the task's view") as caught:
        shown(content)
    assert caught.value.kind == "unsupported"
    # The full range, which was meant.
    assert shown(content, View(bits=16)).max() <= 64


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_task_reads_no_picture_otherwise_than_the_next(channels: int) -> None:
    """Beside a bright one, a dark one of the same camera is refused or read by the same scale."""
    for top in (0, 1, 1000, 4095, 16383, 16384, 40000, 65535):
        samples = np.full((8, 8, channels), top, dtype=np.uint16)
        try:
            found = shown(png(samples, 16, COLOUR[channels]))
        except ImageError:
            assert 0 < top < 16384
            continue
        if channels in (1, 3):
            assert abs(int(found.max()) - top / 257) <= 1


def sbit(bits: int, channels: int) -> bytes:
    return chunk(b"sBIT", bytes([bits] * channels))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_significant_bits_of_a_png(bits: int, channels: int) -> None:
    """Whether the writer scaled the samples, as PNG wants it, or left the upper bits empty."""
    samples = samples_of(bits, channels)
    unscaled = png(samples, 16, COLOUR[channels], extra=[sbit(bits, channels)])
    assert np.abs(shown(unscaled) - expected(samples, bits)).max() <= 0.51
    shifted = samples << 16 - bits
    if channels in (2, 4):
        shifted[..., -1] = 65535
    scaled = png(shifted, 16, COLOUR[channels], extra=[sbit(bits, channels)])
    assert np.abs(shown(scaled) - expected(shifted, 16)).max() <= 1.0


def test_samples_that_may_be_scaled_or_not_are_asked_about() -> None:
    with pytest.raises(ImageError, match="12 bits by its tag, or those scaled to 16"):
        shown(png(np.full((4, 4), 1600), 16, 0, extra=[sbit(12, 1)]))
    assert shown(png(np.zeros((4, 4), int), 16, 0, extra=[sbit(12, 1)])).max() == 0
    assert shown(png(np.full((4, 4), 1800), 16, 0, extra=[sbit(16, 1)])).max() == 7


@pytest.mark.parametrize("tag", [281, 341])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_largest_sample_that_a_tiff_names(tag: int, channels: int) -> None:
    samples = samples_of(12, channels).astype(np.uint16)
    how = {"photometric": "rgb"} if channels == 3 else {}

    def with_top(top: int) -> bytes:
        return tiff(samples, **how, extratags=[(tag, 3, 1, top, True)])

    assert np.abs(shown(with_top(4095)) - expected(samples, 12)).max() <= 0.51
    with pytest.raises(ImageError, match="above the 1023 of 10 bits, which its tags name"):
        shown(with_top(1023))
    with pytest.raises(ImageError, match="no tag that says"):
        # A statistic of this picture, which its neighbours do not share.
        shown(with_top(4001))
    assert shown(with_top(65535)).max() <= 16


def test_bits_say_nothing_about_pictures_of_8_bits() -> None:
    picture = Image.fromarray(smooth(9, 9, 3, 255).astype(np.uint8))
    for format_ in ("PNG", "BMP", "TIFF"):
        file = io.BytesIO()
        picture.save(file, format_)
        assert np.array_equal(shown(file.getvalue(), View(bits=12)), np.asarray(picture))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_arrays_and_opened_images_have_the_tasks_bits(bits: int) -> None:
    samples = samples_of(bits).astype(np.uint16)
    for image in (samples, Image.fromarray(samples)):
        found = read_image(image, size=samples.shape, interpolation="nearest", view=View(bits=bits))
        assert np.abs(found.permute(1, 2, 0).numpy() - expected(samples, bits)).max() <= 0.51
        with pytest.raises(ImageError, match="set `bits`"):
            read_image(image, size=(4, 4), view=DEFAULT_VIEW)


def test_an_opened_image_of_deep_colours_cannot_be_told() -> None:
    content = png(samples_of(12, 3), 16, 2)
    with pytest.raises(ImageError, match="give the image as a file's path or bytes"):
        read_image(Image.open(io.BytesIO(content)), size=(4, 4), view=View(bits=12))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_picture_alone_is_read_by_the_least_depth(bits: int) -> None:
    """Without a task there is no neighbour: a flaw is seen, whatever the camera's depth."""
    samples = samples_of(bits)
    found = decode_image(png(samples, 16, 0), size=samples.shape, interpolation="nearest")
    assert np.abs(found.permute(1, 2, 0).numpy() - expected(samples, bits)).max() <= 0.51


@pytest.mark.parametrize("bits", [7, 9, 15, 17, 12.0, "12", True, None])
def test_other_bits_are_refused(bits: object) -> None:
    with pytest.raises(ConfigError, match="bits: expected 8, 10, 12, 14, 16 or `auto`"):
        View.from_dict({"bits": bits})


def test_views_of_earlier_releases_are_what_they_were() -> None:
    assert "bits" not in View(crop=(0, 0, 4, 4)).to_dict()
    deep = View(bits=12)
    assert View.from_dict(deep.to_dict()) == deep
    assert deep.is_whole
    assert not deep.is_default
