"""Targets of pre-training: image statistics, per patch and for the whole image.

Owns the definition of the targets and their scaling. Labels of what was drawn are learned beside them, if at
all (``images.CONTENTS``): alone, in a trial of ours, class labels of fractals taught a small ViT less than
nothing, while these dense targets made its class token linearly separable (``docs/log.md``).

Shapes: B images, C = 3 colours, H and W pixels, N patches, O orientations, T numbers a patch, G numbers an
image, F principal axes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Scaling", "fit_scaling", "image_targets", "orientation_energy", "patch_targets"]

NUM_ORIENTATIONS = 8
_CELLS_A_PATCH = 2
_GRID = 6
_RINGS, _SECTORS = 6, 6


def orientation_energy(x_BCHW: Tensor) -> Tensor:
    """Gradient magnitude split by the direction of the gradient, modulo 180 degrees.

    Args:
        x_BCHW: Images in 0..1.

    Returns:
        ``(B,O,H,W)``: bin ``o`` is centred on ``o * 180 / O`` degrees (0 is a vertical edge); a direction
        between two bins is shared by them linearly.
    """
    grey_B1HW = functional.pad(x_BCHW.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    dx_BHW = (grey_B1HW[:, 0, 1:-1, 2:] - grey_B1HW[:, 0, 1:-1, :-2]) / 2
    dy_BHW = (grey_B1HW[:, 0, 2:, 1:-1] - grey_B1HW[:, 0, :-2, 1:-1]) / 2
    bin_BHW = torch.atan2(dy_BHW, dx_BHW) * (NUM_ORIENTATIONS / math.pi) % NUM_ORIENTATIONS
    magnitude_BHW = torch.sqrt(dx_BHW**2 + dy_BHW**2)
    centre_O11 = torch.arange(NUM_ORIENTATIONS)[:, None, None]
    gap_BOHW = (bin_BHW[:, None] - centre_O11).abs()
    gap_BOHW = torch.minimum(gap_BOHW, NUM_ORIENTATIONS - gap_BOHW)
    return (1 - gap_BOHW).clamp_(min=0).mul_(magnitude_BHW[:, None])


def patch_targets(x_BCHW: Tensor, energy_BOHW: Tensor, patch_size: int) -> Tensor:
    """Orientation histograms and mean colours of a patch's four quarters, and its contrast: ``(B,N,T)``."""
    cell = patch_size // _CELLS_A_PATCH
    histogram_BNT = _by_patch(functional.avg_pool2d(energy_BOHW, cell))
    colour_BNT = _by_patch(functional.avg_pool2d(x_BCHW, cell))
    norm_BN1 = histogram_BNT.norm(dim=-1, keepdim=True)
    return torch.cat([histogram_BNT / (norm_BN1 + 0.02), colour_BNT, torch.log(norm_BN1 + 0.02)], -1)


def image_targets(x_BCHW: Tensor, energy_BOHW: Tensor, patches_BNT: Tensor) -> Tensor:
    """Statistics of whole images ``(B,G)``: orientation grid, spectrum, colour layout, what stands out.

    The last part is the spread and the extremes of the patch targets over the image: a flaw on an even
    surface changes no average, but it is the patch that differs from the others.
    """
    grid_BG = functional.adaptive_avg_pool2d(energy_BOHW, _GRID).flatten(1).sqrt()
    grid_BG = grid_BG / (grid_BG.norm(dim=1, keepdim=True) + 0.1)
    colour_BG = functional.adaptive_avg_pool2d(x_BCHW, 4).flatten(1)
    mean_BT = patches_BNT.mean(1)
    standing_out_BG = torch.cat(
        [patches_BNT.std(1), patches_BNT.amax(1) - mean_BT, mean_BT - patches_BNT.amin(1)], 1
    )
    return torch.cat([grid_BG, _spectrum(x_BCHW), colour_BG, standing_out_BG], 1)


def _by_patch(cells_BOHW: Tensor) -> Tensor:
    """Cells to patches, as ``functional.unfold`` would, but for channels-first pooled maps."""
    return functional.pixel_unshuffle(cells_BOHW, _CELLS_A_PATCH).flatten(2).transpose(1, 2)


def _spectrum(x_BCHW: Tensor) -> Tensor:
    """Log power in rings (frequency) and sectors (direction) of the windowed Fourier transform."""
    size = x_BCHW.shape[-1]
    grey_BHW = x_BCHW.mean(1)
    window_W = torch.hann_window(size, periodic=False)
    centred_BHW = (grey_BHW - grey_BHW.mean((1, 2), keepdim=True)) * window_W[:, None] * window_W
    power_BHF = torch.fft.rfft2(centred_BHW).abs().square()
    return torch.log(power_BHF.flatten(1) @ _spectrum_bins(size) + 1e-2)


def _spectrum_bins(size: int) -> Tensor:
    """Averaging matrix ``(H*F, rings*sectors)``; rings are spaced evenly in the logarithm of frequency."""
    fy_HF, fx_HF = torch.meshgrid(torch.fft.fftfreq(size), torch.fft.rfftfreq(size), indexing="ij")
    radius_HF = torch.sqrt(fy_HF**2 + fx_HF**2) * size
    ring_HF = torch.log(radius_HF.clamp(min=1.0)) / math.log(size / 2) * _RINGS
    sector_HF = torch.atan2(fy_HF, fx_HF) % math.pi / math.pi * _SECTORS
    bin_HF = ring_HF.long().clamp(max=_RINGS - 1) * _SECTORS + sector_HF.long().clamp(max=_SECTORS - 1)
    member_HFG = functional.one_hot(bin_HF, _RINGS * _SECTORS).float() * (radius_HF > 0)[..., None]
    member_XG = member_HFG.flatten(0, 1)
    return member_XG / member_XG.sum(0).clamp(min=1.0)


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Puts targets on one scale, so that the loss is the share of variance left unexplained.

    Attributes:
        mean_T: Mean of each number of a patch.
        std_T: Standard deviation of each number of a patch.
        mean_G: Mean of each number of an image.
        rotate_GF: From centred image targets to their first principal axes, partly whitened.
    """

    mean_T: Tensor
    std_T: Tensor
    mean_G: Tensor
    rotate_GF: Tensor

    def patches(self, patches_BNT: Tensor) -> Tensor:
        """Scaled patch targets."""
        return (patches_BNT - self.mean_T) / self.std_T

    def images(self, images_BG: Tensor) -> Tensor:
        """Scaled image targets ``(B,F)``."""
        return (images_BG - self.mean_G) @ self.rotate_GF


def fit_scaling(patches_BNT: Tensor, images_BG: Tensor, whitening: float, num_axes: int) -> Scaling:
    """Scaling from a sample of targets.

    Args:
        patches_BNT: Patch targets.
        images_BG: Image targets.
        whitening: 0 standardises the image targets; 1 also makes every principal axis count the same; in
            between an axis of variance v counts as ``v ** (1 - whitening)``. Without it, the few axes that
            tell bright from dark and busy from flat drown those that tell shapes apart.
        num_axes: Principal axes of the image targets to keep. The rest is noise that nothing could predict.
    """
    flat_XT = patches_BNT.flatten(0, 1)
    mean_G, std_G = images_BG.mean(0), images_BG.std(0) + 1e-4
    standard_BG = (images_BG - mean_G) / std_G
    variance_F, axes_GF = torch.linalg.eigh(standard_BG.T @ standard_BG / len(standard_BG))
    variance_F, axes_GF = variance_F[-num_axes:].clamp(min=1e-2), axes_GF[:, -num_axes:]
    weight_F = variance_F ** (-whitening / 2)
    weight_F = weight_F / (variance_F * weight_F**2).mean().sqrt()
    rotate_GF = axes_GF / std_G[:, None] * weight_F
    return Scaling(
        mean_T=flat_XT.mean(0),
        std_T=flat_XT.std(0) + 1e-4,
        mean_G=mean_G,
        rotate_GF=rotate_GF,
    )
