import pytest
import torch
from torch import Generator

from ship.pretrain.images import CONTENTS, draw_images
from ship.pretrain.silhouettes import FLAWS, draw_contours, draw_flaws, draw_fractals, draw_strokes
from ship.pretrain.textures import TEXTURES, draw_textures


def test_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    first, again, other = (draw_images(16, 48, seed) for seed in (3, 3, 4))

    assert torch.equal(first.x_BCHW, again.x_BCHW)
    assert torch.equal(first.contents_BM, again.contents_BM)
    assert not torch.equal(first.x_BCHW, other.x_BCHW)


@pytest.mark.parametrize(("num", "size"), [(1, 48), (7, 48), (24, 32)])
def test_images_are_finite_and_in_range(num: int, size: int) -> None:
    x_BCHW = draw_images(num, size, seed=0).x_BCHW

    assert x_BCHW.shape == (num, 3, size, size)
    assert x_BCHW.isfinite().all()
    assert x_BCHW.min() >= 0
    assert x_BCHW.max() <= 1


def test_images_of_a_batch_are_diverse() -> None:
    x_BX = draw_images(64, 48, seed=1).x_BCHW.flatten(1)
    distance_BB = torch.cdist(x_BX, x_BX) / x_BX.shape[1] ** 0.5
    distance_BB.fill_diagonal_(1.0)

    assert distance_BB.min() > 0.02, "two images of a batch are nearly the same"
    assert (x_BX.std(1) < 0.01).float().mean() < 0.1, "too many images are blank"
    assert x_BX.mean(1).std() > 0.1, "all images are equally bright"


def test_contents_name_what_is_in_each_picture() -> None:
    contents_BM = draw_images(400, 48, seed=0).contents_BM

    assert contents_BM.shape == (400, len(CONTENTS))
    assert set(contents_BM.unique().tolist()) == {0.0, 1.0}
    share_M = dict(zip(CONTENTS, contents_BM.mean(0).tolist(), strict=True))
    # Strokes are 28% of the pictures' main things, a scratch, stain or hole is on 60% of the 32% surfaces.
    assert share_M["stroke"] > share_M["fractal"] > share_M["scratch"] > 0.03
    assert 0.3 < sum(share_M[texture.__name__] for texture in TEXTURES) < 0.9, (
        "flat backgrounds have no label"
    )
    assert contents_BM[:, : -len(TEXTURES)].sum(1).max() > 1, "several things may be in one picture"


def test_an_unseen_thing_has_no_label() -> None:
    contents_BM = draw_images(64, 48, seed=0, seen_change=1.1).contents_BM

    assert contents_BM[:, : -len(TEXTURES)].sum() == 0
    assert contents_BM[:, -len(TEXTURES) :].sum() > 0


def test_flaws_are_of_the_kind_that_is_said() -> None:
    mask_BHW, kind_B = draw_flaws(90, 48, Generator().manual_seed(0))

    area_B = mask_BHW.mean((1, 2))
    soft_B = (mask_BHW * (1 - mask_BHW)).mean((1, 2)) / area_B
    scratch, stain, hole = ((kind_B == FLAWS.index(name)).nonzero()[:, 0] for name in FLAWS)
    assert len(scratch) == len(stain) == len(hole) == 30
    assert area_B[scratch].median() < area_B[stain].median()
    assert soft_B[hole].median() < soft_B[stain].median(), "a hole has an edge, a stain has none"
    extent = [_extent(mask_BHW[kind]).median() for kind in (scratch, hole)]
    assert extent[0] > 1.5 * extent[1], "a scratch is long"


def _extent(mask_BHW: torch.Tensor) -> torch.Tensor:
    seen_BHW = mask_BHW > 0.3
    return torch.maximum(seen_BHW.any(1).sum(1), seen_BHW.any(2).sum(1)).float()


def test_textures_are_of_the_kind_that_is_said() -> None:
    field_BHW, kind_B = draw_textures(12, 8, Generator().manual_seed(0))

    generator = Generator().manual_seed(0)
    drawn_KX = [texture(3, 8, generator).flatten(1) for texture in TEXTURES]
    assert len(set(kind_B.tolist())) > 1
    for field_HW, kind in zip(field_BHW, kind_B, strict=True):
        # Contrast alone differs.
        likeness_X = torch.corrcoef(torch.cat([field_HW.reshape(1, -1), *drawn_KX]))[0, 1:]
        assert likeness_X.max() > 0.95
        assert likeness_X.argmax() // 3 == kind


@pytest.mark.parametrize("draw", TEXTURES)
def test_textures_vary_within_and_between_images(draw: object) -> None:
    assert callable(draw)
    f_BHW = draw(12, 40, Generator().manual_seed(0))

    assert f_BHW.shape == (12, 40, 40)
    assert f_BHW.isfinite().all()
    assert (f_BHW.flatten(1).std(1) > 0).all()
    assert f_BHW.std(0).mean() > 0


@pytest.mark.parametrize(
    "draw", [draw_strokes, draw_contours, draw_fractals, lambda *how: draw_flaws(*how)[0]]
)
def test_masks_cover_a_part_of_the_picture(draw: object) -> None:
    assert callable(draw)
    mask_BHW = draw(24, 48, Generator().manual_seed(0))

    assert mask_BHW.shape == (24, 48, 48)
    assert mask_BHW.min() >= 0
    assert mask_BHW.max() <= 1
    assert 0.005 < mask_BHW.mean() < 0.6
