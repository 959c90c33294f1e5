"""Grey fields that fill a picture: noise, gratings, cells, courses of bricks, gradients.

Owns what surfaces look like. Knows nothing of shapes, colour or how a picture is put together. Every function
draws a whole batch at once, so that drawing costs a fraction of the training step that consumes it.

Shapes: B images, H and W pixels (square), P points, Q gratings. Fields are float32 in 0..1.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

__all__ = ["TEXTURES", "draw_textures", "make_generator", "pixel_grid", "uniform"]


def make_generator(seed: int) -> Generator:
    """A generator on the default device: ``with torch.device("cuda"):`` draws, and trains, there."""
    return Generator(torch.get_default_device()).manual_seed(seed)


def uniform(generator: Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform random numbers of this shape."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def pixel_grid(size: int) -> tuple[Tensor, Tensor]:
    """Row and column ``(H,W)`` of every pixel's centre, both in 0..1."""
    line_W = (torch.arange(size) + 0.5) / size
    y_HW, x_HW = torch.meshgrid(line_W, line_W, indexing="ij")
    return y_HW, x_HW


def draw_textures(num: int, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """An even share of every kind of texture, in random order.

    Returns:
        Fields ``(B,H,W)``, and the place in ``TEXTURES`` of each one's kind ``(B,)``.
    """
    share = math.ceil(num / len(TEXTURES))
    field_BHW = torch.cat([_stretch(texture(share, size, generator)) for texture in TEXTURES])
    order_B = torch.randperm(len(field_BHW), generator=generator)[:num]
    return field_BHW[order_B], order_B // share


def power_noise(num: int, size: int, generator: Generator) -> Tensor:
    """Noise whose spectrum falls as a power of frequency, often along a direction: clouds, grain, grass."""
    noise_BHW = torch.randn(num, size, size, generator=generator)
    fy_HF, fx_HF = torch.meshgrid(torch.fft.fftfreq(size), torch.fft.rfftfreq(size), indexing="ij")
    angle_B11 = uniform(generator, num, 1, 1, high=math.pi)
    stretch_B11 = torch.exp(uniform(generator, num, 1, 1, low=0.0, high=1.8))
    along_BHF = fx_HF * angle_B11.cos() + fy_HF * angle_B11.sin()
    across_BHF = fy_HF * angle_B11.cos() - fx_HF * angle_B11.sin()
    radius_BHF = torch.sqrt((along_BHF * stretch_B11) ** 2 + (across_BHF / stretch_B11) ** 2) + 0.5 / size
    slope_B11 = uniform(generator, num, 1, 1, low=0.2, high=2.6)
    spectrum_BHF = torch.fft.rfft2(noise_BHW) * radius_BHF**-slope_B11
    field_BHW: Tensor = torch.fft.irfft2(spectrum_BHF, s=(size, size))
    return field_BHW


def gratings(num: int, size: int, generator: Generator) -> Tensor:
    """One to three waves, their phase bent by smooth noise: stripes, weaves, wood, fingerprints."""
    y_HW, x_HW = pixel_grid(size)
    angle_BQ11 = uniform(generator, num, 3, 1, 1, high=math.pi)
    frequency_BQ11 = torch.exp(uniform(generator, num, 3, 1, 1, low=math.log(1.5), high=math.log(size / 4)))
    phase_BQ11 = uniform(generator, num, 3, 1, 1, high=2 * math.pi)
    bend_B1HW = _block_noise(num, size, 5, generator)[:, None] * uniform(generator, num, 1, 1, 1, high=6.0)
    weight_BQ11 = uniform(generator, num, 3, 1, 1)
    weight_BQ11[:, 0] = 1.0
    weight_BQ11[:, 1:] *= uniform(generator, num, 2, 1, 1) < 0.4
    path_BQHW = x_HW * angle_BQ11.cos() + y_HW * angle_BQ11.sin()
    wave_BQHW = torch.sin(2 * math.pi * frequency_BQ11 * path_BQHW + phase_BQ11 + bend_B1HW)
    field_BHW = (wave_BQHW * weight_BQ11).sum(1)
    sharpness_B11 = torch.exp(uniform(generator, num, 1, 1, low=-1.0, high=2.0))
    return torch.tanh(field_BHW * sharpness_B11)


def cells(num: int, size: int, generator: Generator) -> Tensor:
    """Distances to random points (Worley noise): gravel, scales, cracks, spots."""
    y_HW, x_HW = pixel_grid(size)
    num_points = 28
    points_BP2 = uniform(generator, num, num_points, 2, low=-0.1, high=1.1)
    hidden_BP = uniform(generator, num, num_points) > uniform(generator, num, 1, low=0.25, high=1.0)
    points_BP2[hidden_BP] += 9.0
    first_BHW, second_BHW = (torch.full((num, size, size), 81.0) for _ in range(2))
    for p in range(num_points):
        gap_BHW = (y_HW[:, :1] - points_BP2[:, p, 0, None, None]).square() + (
            x_HW[:1] - points_BP2[:, p, 1, None, None]
        ).square()
        second_BHW = torch.minimum(second_BHW, torch.maximum(first_BHW, gap_BHW))
        first_BHW = torch.minimum(first_BHW, gap_BHW)
    first_BHW, second_BHW = first_BHW.sqrt(), second_BHW.sqrt()
    is_crack_B11 = uniform(generator, num, 1, 1) < 0.5
    return torch.where(is_crack_B11, (second_BHW - first_BHW).clamp(max=0.12), first_BHW.clamp(max=0.25))


def courses(num: int, size: int, generator: Generator) -> Tensor:
    """Rows of blocks with joints between them, turned and shifted: bricks, tiles, planks."""
    y_HW, x_HW = pixel_grid(size)
    angle_B11 = uniform(generator, num, 1, 1, low=-0.4, high=0.4)
    angle_B11 += (uniform(generator, num, 1, 1) < 0.3) * (math.pi / 2)
    rows_B11 = uniform(generator, num, 1, 1, low=2.0, high=9.0)
    u_BHW = x_HW * angle_B11.cos() + y_HW * angle_B11.sin() + uniform(generator, num, 1, 1) + 2.0
    v_BHW = y_HW * angle_B11.cos() - x_HW * angle_B11.sin() + uniform(generator, num, 1, 1) + 2.0
    row_BHW = torch.floor(v_BHW * rows_B11)
    columns_B11 = rows_B11 * uniform(generator, num, 1, 1, low=0.3, high=1.0)
    u_BHW = u_BHW * columns_B11 + row_BHW * uniform(generator, num, 1, 1, low=0.0, high=0.5)
    joint_B11 = uniform(generator, num, 1, 1, low=0.03, high=0.16)
    edge_v_BHW = (v_BHW * rows_B11 - row_BHW - 0.5).abs()
    edge_u_BHW = (u_BHW - u_BHW.floor() - 0.5).abs() * (rows_B11 / columns_B11) - (
        rows_B11 / columns_B11 - 1
    ) / 2
    block_BHW = torch.sigmoid((0.5 - torch.maximum(edge_u_BHW, edge_v_BHW) - joint_B11) * size / rows_B11)
    tone_BHW = torch.sin((row_BHW * 127.1 + u_BHW.floor() * 311.7) * 43.7) * 0.25
    return block_BHW * (1.0 + tone_BHW)


def gradients(num: int, size: int, generator: Generator) -> Tensor:
    """Light that falls off smoothly, or a coarse grid of tones: shading, lamps, blurred scenes."""
    coarse_BHW = torch.cat(
        [_block_noise(math.ceil(num / 4), size, cells_a_side, generator) for cells_a_side in (2, 3, 5, 9)]
    )
    return coarse_BHW[:num]


def _block_noise(num: int, size: int, cells_a_side: int, generator: Generator) -> Tensor:
    grid_B1GG = uniform(generator, num, 1, cells_a_side, cells_a_side)
    field_B1HW = functional.interpolate(grid_B1GG, (size, size), mode="bicubic", align_corners=True)
    return field_B1HW[:, 0]


def _stretch(field_BHW: Tensor) -> Tensor:
    """To 0..1 per image, 2% of the pixels at either end cut, so that one outlier does not grey the rest."""
    flat_BX = field_BHW.flatten(1)
    ordered_BX = flat_BX.sort(1).values
    margin = flat_BX.shape[1] // 50
    low_B1, high_B1 = ordered_BX[:, margin, None], ordered_BX[:, -1 - margin, None]
    return ((flat_BX - low_B1) / (high_B1 - low_B1).clamp(min=1e-6)).clamp(0, 1).view_as(field_BHW)


TEXTURES: tuple[Callable[[int, int, Generator], Tensor], ...] = (
    power_noise,
    gratings,
    cells,
    courses,
    gradients,
)
