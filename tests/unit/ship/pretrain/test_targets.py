import math

import pytest
import torch

from ship.pretrain.targets import (
    fit_scaling,
    image_targets,
    orientation_energy,
    patch_targets,
)


def _ramp(angle: float, size: int = 16, slope: float = 0.02) -> torch.Tensor:
    """Brightness that rises by ``slope`` a pixel along ``angle``."""
    y_HW, x_HW = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    grey_HW = 0.5 + slope * ((x_HW - size / 2) * math.cos(angle) + (y_HW - size / 2) * math.sin(angle))
    return grey_HW.expand(1, 3, -1, -1)


def test_a_vertical_edge_has_all_its_energy_in_the_first_bin() -> None:
    x_BCHW = torch.zeros(1, 3, 8, 8)
    x_BCHW[..., 4:] = 1.0

    energy_BOHW = orientation_energy(x_BCHW)

    # Central differences see the step from both sides, half of it each.
    expected_OHW = torch.zeros(8, 8, 8)
    expected_OHW[0, :, 3:5] = 0.5
    torch.testing.assert_close(energy_BOHW[0], expected_OHW)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("which", range(8))
def test_a_ramp_falls_into_the_bin_of_its_direction_whichever_side_is_bright(which: int, sign: int) -> None:
    energy_BOHW = orientation_energy(_ramp(which * math.pi / 8, slope=sign * 0.02))

    inner_O = energy_BOHW[0, :, 8, 8]
    assert inner_O[which] == pytest.approx(0.02, abs=1e-5)
    assert inner_O.sum() == pytest.approx(0.02, abs=1e-5)


def test_a_direction_between_two_bins_is_shared() -> None:
    inner_O = orientation_energy(_ramp(0.25 * math.pi / 8))[0, :, 8, 8]

    torch.testing.assert_close(inner_O[:2], torch.tensor([0.015, 0.005]), atol=1e-5, rtol=0.0)


def test_patch_targets_of_one_edge() -> None:
    x_BCHW = torch.zeros(1, 3, 16, 16)
    x_BCHW[:, 0, :, 12:] = 1.0  # red, from the middle of the right-hand patches on

    patches_BNT = patch_targets(x_BCHW, orientation_energy(x_BCHW), patch_size=8)

    assert patches_BNT.shape == (1, 4, 45)
    left_T, right_T = patches_BNT[0, 0], patches_BNT[0, 1]
    assert left_T[:44].abs().max() == 0
    assert left_T[44] == pytest.approx(math.log(0.02))
    # Each quarter holds one of the edge's two columns, in bin 0: a third (red) of the step, halved, over 4.
    each = 1 / 3 / 2 / 4
    norm = math.sqrt(4 * each**2)
    histogram_OQ = right_T[:32].view(8, 4)
    torch.testing.assert_close(histogram_OQ[0], torch.full((4,), each / (norm + 0.02)))
    assert histogram_OQ[1:].abs().max() == 0
    torch.testing.assert_close(right_T[32:44].view(3, 4)[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert right_T[44] == pytest.approx(math.log(norm + 0.02))


def test_patches_are_numbered_row_by_row() -> None:
    x_BCHW = torch.zeros(1, 3, 24, 24)
    x_BCHW[..., 8:16, 16:] = 1.0

    patches_BNT = patch_targets(x_BCHW, orientation_energy(x_BCHW), patch_size=8)

    assert patches_BNT[0, :, 32:44].mean(1).tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0]


def test_a_small_flaw_stands_out_in_the_image_targets() -> None:
    x_BCHW = torch.full((2, 3, 48, 48), 0.5)
    x_BCHW[1, :, 10:13, 10:13] = 0.0
    energy_BOHW = orientation_energy(x_BCHW)
    patches_BNT = patch_targets(x_BCHW, energy_BOHW, patch_size=8)

    images_BG = image_targets(x_BCHW, energy_BOHW, patches_BNT)

    standing_out_BG = images_BG[:, -3 * 45 :]
    assert standing_out_BG[0].abs().max() < 1e-6
    assert standing_out_BG[1].max() > 0.5


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_scaled_targets_have_variance_one(whitening: float) -> None:
    generator = torch.Generator().manual_seed(0)
    patches_BNT = torch.randn(400, 4, 5, generator=generator) * torch.arange(1, 6) + 3.0
    mixing_GG = torch.randn(6, 6, generator=generator) * 0.4 + torch.eye(6)
    images_BG = torch.randn(400, 6, generator=generator) @ mixing_GG - 2.0

    scaling = fit_scaling(patches_BNT, images_BG, whitening, num_axes=6)

    # 1%: sample statistics of 400 images, and the small constants that guard divisions.
    assert scaling.patches(patches_BNT).var((0, 1)).tolist() == pytest.approx([1.0] * 5, rel=0.01)
    scaled_BG = scaling.images(images_BG)
    assert scaled_BG.var(0).sum().item() == pytest.approx(6.0, rel=0.01)
    assert scaled_BG.mean().abs() < 1e-4
    covariance_GG = scaled_BG.T.cov()
    assert (covariance_GG - covariance_GG.diag().diag()).abs().max() < 0.01
    if whitening == 1.0:
        assert covariance_GG.diag().tolist() == pytest.approx([1.0] * 6, rel=0.01)
