import pytest
import torch
from torch import Generator

from ship.pretrain.images import draw_images
from ship.pretrain.silhouettes import draw_contours, draw_flaws, draw_fractals, draw_strokes
from ship.pretrain.textures import TEXTURES, draw_textures


def test_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    first_BCHW, again_BCHW, other_BCHW = (draw_images(16, 48, seed) for seed in (3, 3, 4))

    assert torch.equal(first_BCHW, again_BCHW)
    assert not torch.equal(first_BCHW, other_BCHW)


@pytest.mark.parametrize(("num", "size"), [(1, 48), (7, 48), (24, 32)])
def test_images_are_finite_and_in_range(num: int, size: int) -> None:
    x_BCHW = draw_images(num, size, seed=0)

    assert x_BCHW.shape == (num, 3, size, size)
    assert x_BCHW.isfinite().all()
    assert x_BCHW.min() >= 0
    assert x_BCHW.max() <= 1


def test_images_of_a_batch_are_diverse() -> None:
    x_BX = draw_images(64, 48, seed=1).flatten(1)
    distance_BB = torch.cdist(x_BX, x_BX) / x_BX.shape[1] ** 0.5
    distance_BB.fill_diagonal_(1.0)

    assert distance_BB.min() > 0.02, "two images of a batch are nearly the same"
    assert (x_BX.std(1) < 0.01).float().mean() < 0.1, "too many images are blank"
    assert x_BX.mean(1).std() > 0.1, "all images are equally bright"


@pytest.mark.parametrize("draw", [*TEXTURES, draw_textures])
def test_textures_vary_within_and_between_images(draw: object) -> None:
    assert callable(draw)
    f_BHW = draw(12, 40, Generator().manual_seed(0))

    assert f_BHW.shape == (12, 40, 40)
    assert f_BHW.isfinite().all()
    assert (f_BHW.flatten(1).std(1) > 0).all()
    assert f_BHW.std(0).mean() > 0


@pytest.mark.parametrize("draw", [draw_strokes, draw_contours, draw_fractals, draw_flaws])
def test_masks_cover_a_part_of_the_picture(draw: object) -> None:
    assert callable(draw)
    mask_BHW = draw(24, 48, Generator().manual_seed(0))

    assert mask_BHW.shape == (24, 48, 48)
    assert mask_BHW.min() >= 0
    assert mask_BHW.max() <= 1
    assert 0.005 < mask_BHW.mean() < 0.6
