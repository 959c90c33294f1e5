"""Soft masks of things: strokes, closed contours, iterated function systems, flaws.

Owns what shapes look like. Knows nothing of what fills them. Whole batches at once.

Shapes: B images, H and W pixels (square), X = H*W, S segments, K harmonics, F maps of a fractal, P particles.
Masks are float32 in 0..1, 1 inside.
"""

import math

import torch
from torch import Generator, Tensor

from ship.pretrain.textures import pixel_grid, uniform

__all__ = ["FLAWS", "draw_contours", "draw_flaws", "draw_fractals", "draw_strokes"]

FLAWS = ("scratch", "stain", "hole")


def draw_strokes(num: int, size: int, generator: Generator, num_segments: int = 14) -> Tensor:
    """Pen strokes: a curve that turns smoothly, sometimes lifted once, of one thickness.

    Headings are a random walk with a bias, so that arcs, loops, hooks and near-straight lines all come up.
    """
    turn_B1 = torch.randn(num, 1, generator=generator) * 0.35
    wobble_BS = torch.randn(num, num_segments, generator=generator) * uniform(generator, num, 1, high=0.5)
    kink_BS = (uniform(generator, num, num_segments) < 0.12) * uniform(
        generator, num, num_segments, low=-2.5, high=2.5
    )
    heading_BS = uniform(generator, num, 1, high=2 * math.pi) + (turn_B1 + wobble_BS + kink_BS).cumsum(1)
    step_BS2 = torch.stack([heading_BS.sin(), heading_BS.cos()], -1)
    path_BS2 = torch.cat([torch.zeros(num, 1, 2), step_BS2.cumsum(1)], 1)
    low_B12, high_B12 = path_BS2.amin(1, keepdim=True), path_BS2.amax(1, keepdim=True)
    extent_B11 = (high_B12 - low_B12).amax(-1, keepdim=True)
    scale_B11 = uniform(generator, num, 1, 1, low=0.3, high=0.9) / extent_B11
    centre_B12 = uniform(generator, num, 1, 2, low=0.35, high=0.65)
    path_BS2 = (path_BS2 - (low_B12 + high_B12) / 2) * scale_B11 + centre_B12
    thickness_B11 = torch.exp(uniform(generator, num, 1, 1, low=math.log(0.012), high=math.log(0.1)))
    lifted_BS = torch.zeros(num, num_segments, dtype=torch.bool)
    lift_B = torch.randint(2, num_segments - 2, (num,), generator=generator)
    lifted_BS[torch.arange(num), lift_B] = uniform(generator, num) < 0.25
    distance_BHW = _distance_to_path(path_BS2, lifted_BS, size)
    return torch.sigmoid((thickness_B11 - distance_BHW) * size * 1.6)


def draw_contours(num: int, size: int, generator: Generator, num_harmonics: int = 7) -> Tensor:
    """Closed curves, their radius a short Fourier series: discs, leaves, stars, blobs; some only outlines."""
    y_HW, x_HW = pixel_grid(size)
    centre_B211 = uniform(generator, num, 2, 1, 1, low=0.1, high=0.9)
    squash_B11 = torch.exp(uniform(generator, num, 1, 1, low=0.0, high=0.7))
    angle_B11 = uniform(generator, num, 1, 1, high=math.pi)
    dy_BHW, dx_BHW = y_HW - centre_B211[:, 0], x_HW - centre_B211[:, 1]
    u_BHW = (dx_BHW * angle_B11.cos() + dy_BHW * angle_B11.sin()) * squash_B11
    v_BHW = dy_BHW * angle_B11.cos() - dx_BHW * angle_B11.sin()
    order_K = torch.arange(1, num_harmonics + 1)
    weight_BK = torch.randn(num, num_harmonics, generator=generator) / order_K**1.2
    # One strong harmonic in a third of them: stars, crosses and gears rather than blobs.
    star_B = uniform(generator, num) < 0.33
    weight_BK[star_B] *= 0.1
    weight_BK[star_B, torch.randint(2, num_harmonics, (int(star_B.sum()),), generator=generator)] = 1.0
    weight_BK *= uniform(generator, num, 1, high=0.45)
    phase_BK = uniform(generator, num, num_harmonics, high=2 * math.pi)
    bins = 128
    theta_A = torch.arange(bins) * (2 * math.pi / bins)
    series_BA = torch.einsum(
        "bk,bka->ba", weight_BK, torch.cos(order_K[:, None] * theta_A + phase_BK[..., None])
    )
    radius_BA = (
        torch.exp(uniform(generator, num, 1, low=math.log(0.06), high=math.log(0.42))) * series_BA.exp()
    )
    bin_BX = ((torch.atan2(v_BHW, u_BHW) / (2 * math.pi) % 1.0) * bins).long().clamp(max=bins - 1).flatten(1)
    inside_BX = radius_BA.gather(1, bin_BX) - torch.sqrt(u_BHW**2 + v_BHW**2).flatten(1)
    width_B1 = uniform(generator, num, 1, low=0.015, high=0.06)
    is_outline_B1 = uniform(generator, num, 1) < 0.3
    inside_BX = torch.where(is_outline_B1, width_B1 - inside_BX.abs(), inside_BX)
    return torch.sigmoid(inside_BX * size * 1.6).view(num, size, size)


def draw_fractals(num: int, size: int, generator: Generator, num_particles: int = 192) -> Tensor:
    """Attractors of random iterated function systems, drawn by the chaos game."""
    num_maps, num_steps, warm_up = 4, 44, 8
    # Singular values below one make every map a contraction, so that no particle escapes.
    left_BF, right_BF = (uniform(generator, num, num_maps, high=2 * math.pi) for _ in range(2))
    long_BF = uniform(generator, num, num_maps, low=0.35, high=0.85)
    short_BF = long_BF * uniform(generator, num, num_maps, low=0.2, high=1.0)
    maps_BF22 = _turn(left_BF) @ torch.diag_embed(torch.stack([long_BF, short_BF], -1)) @ _turn(right_BF)
    shift_BF2 = uniform(generator, num, num_maps, 2, low=-1.0, high=1.0)
    used_B1 = torch.randint(2, num_maps + 1, (num, 1), generator=generator)
    parts = (*maps_BF22.flatten(2).unbind(-1), *shift_BF2.unbind(-1))
    point_BP2, visited = torch.zeros(num, num_particles, 2), []
    for step in range(num_steps):
        pick_BP = (uniform(generator, num, num_particles) * used_B1).long()
        y_BP, x_BP = point_BP2.unbind(-1)
        a_BP, b_BP, c_BP, d_BP, e_BP, f_BP = (part_BF.gather(1, pick_BP) for part_BF in parts)
        point_BP2 = torch.stack([a_BP * y_BP + b_BP * x_BP + e_BP, c_BP * y_BP + d_BP * x_BP + f_BP], -1)
        if step >= warm_up:
            visited.append(point_BP2)
    cloud_BP2 = torch.cat(visited, 1)
    low_B12, high_B12 = cloud_BP2.amin(1, keepdim=True), cloud_BP2.amax(1, keepdim=True)
    extent_B11 = (high_B12 - low_B12).amax(-1, keepdim=True).clamp(min=1e-3)
    cloud_BP2 = (cloud_BP2 - (low_B12 + high_B12) / 2) / extent_B11 * 0.94 + 0.5
    cell_BP2 = (cloud_BP2 * size).long().clamp(0, size - 1)
    count_BX = torch.zeros(num, size * size)
    count_BX.scatter_add_(1, cell_BP2[..., 0] * size + cell_BP2[..., 1], torch.ones(cloud_BP2.shape[:2]))
    density_B1 = count_BX.amax(1, keepdim=True).clamp(max=12.0)
    return (torch.log1p(count_BX) / torch.log1p(density_B1)).clamp(0, 1).view(num, size, size)


def draw_flaws(num: int, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Small marks on a surface, a third each: a thin scratch, a soft stain, a round hole.

    Returns:
        Masks ``(B,H,W)``, and the place in ``FLAWS`` of each one's kind ``(B,)``.
    """
    y_HW, x_HW = pixel_grid(size)
    share = math.ceil(num / len(FLAWS))
    ends_B22 = uniform(generator, share, 2, 2, low=0.05, high=0.95)
    width_B11 = uniform(generator, share, 1, 1, low=0.008, high=0.03)
    unlifted_BS = torch.zeros(share, 1, dtype=torch.bool)
    scratch_BHW = torch.sigmoid((width_B11 - _distance_to_path(ends_B22, unlifted_BS, size)) * size * 1.6)
    centre_B211 = uniform(generator, 2 * share, 2, 1, 1, low=0.1, high=0.9)
    distance_BHW = torch.sqrt((y_HW - centre_B211[:, 0]) ** 2 + (x_HW - centre_B211[:, 1]) ** 2)
    radius_B11 = uniform(generator, 2 * share, 1, 1, low=0.04, high=0.2)
    stain_BHW = torch.exp(-((distance_BHW / radius_B11) ** 2))[:share]
    hole_BHW = torch.sigmoid((radius_B11 * 0.6 - distance_BHW) * size * 1.6)[share:]
    flaws_BHW = torch.cat([scratch_BHW, stain_BHW, hole_BHW])
    order_B = torch.randperm(len(flaws_BHW), generator=generator)[:num]
    return flaws_BHW[order_B], order_B // share


def _turn(angle_BF: Tensor) -> Tensor:
    rows = [
        torch.stack([angle_BF.cos(), -angle_BF.sin()], -1),
        torch.stack([angle_BF.sin(), angle_BF.cos()], -1),
    ]
    return torch.stack(rows, -2)


def _distance_to_path(path_BS2: Tensor, lifted_BS: Tensor, size: int) -> Tensor:
    """Distance ``(B,H,W)`` of every pixel to the nearest segment that is not lifted."""
    line_W = (torch.arange(size) + 0.5) / size
    nearest_BHW = torch.full((len(path_BS2), size, size), 81.0)
    for s in range(lifted_BS.shape[1]):
        start_B2, along_B2 = path_BS2[:, s], path_BS2[:, s + 1] - path_BS2[:, s]
        unit_B2 = along_B2 / along_B2.square().sum(-1, keepdim=True).clamp(min=1e-9)
        dy_BH1, dx_B1W = (line_W - start_B2[:, :1])[:, :, None], (line_W - start_B2[:, 1:])[:, None]
        share_BHW = (dy_BH1 * unit_B2[:, 0, None, None] + dx_B1W * unit_B2[:, 1, None, None]).clamp_(0, 1)
        gap_BHW = (dy_BH1 - share_BHW * along_B2[:, 0, None, None]).square_()
        gap_BHW += share_BHW.mul_(-along_B2[:, 1, None, None]).add_(dx_B1W).square_()
        nearest_BHW = torch.minimum(nearest_BHW, gap_BHW + lifted_BS[:, s, None, None] * 81.0)
    return nearest_BHW.sqrt_()
