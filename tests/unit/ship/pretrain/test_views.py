from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

from ship.pretrain.batches import BatchSource
from ship.pretrain.train import Trainer
from ship.pretrain.views import agreement_loss, draw_views
from tests.unit.ship.pretrain.tiny import TINY

CPU = torch.device("cpu")


def test_a_view_without_zoom_changes_light_alone() -> None:
    x_BCHW = torch.rand(8, 3, 16, 16, generator=Generator().manual_seed(0)) * 0.2 + 0.4

    view_BCHW = draw_views(x_BCHW, 1.0, Generator().manual_seed(1))

    for x_CHW, view_CHW in zip(x_BCHW, view_BCHW, strict=True):
        correlation = torch.stack([x_CHW.flatten(), view_CHW.flatten()]).corrcoef()[0, 1]
        assert correlation == pytest.approx(1.0, abs=1e-3)
    assert not torch.allclose(x_BCHW, view_BCHW, atol=0.01)


def test_a_zoomed_view_shows_a_part_of_the_picture() -> None:
    x_BCHW = torch.linspace(0.3, 0.7, 32).expand(16, 3, 32, 32)  # brightness rises from left to right

    view_BCHW = draw_views(x_BCHW, 0.5, Generator().manual_seed(0))

    gain = [(view[0, 16, 31] - view[0, 16, 0]).item() for view in view_BCHW]
    # Half to all of the ramp, at 0.7 to 1.3 times its contrast.
    assert 0.4 * 0.5 * 0.65 < min(gain) < max(gain) < 0.4 * 1.35
    assert max(gain) - min(gain) > 0.05


def test_alike_and_varied_views_cost_least() -> None:
    first_PZ = torch.randn(512, 8, generator=Generator().manual_seed(0)) * 1.2
    other_PZ = first_PZ[torch.randperm(512, generator=Generator().manual_seed(1))]
    collapsed_PZ = torch.zeros(512, 8)
    alike_PZ = first_PZ[:, :1].expand(-1, 8)

    best = agreement_loss(first_PZ, first_PZ)

    assert best < 0.02
    assert agreement_loss(first_PZ, other_PZ) > 1.0, "views that differ"
    assert agreement_loss(collapsed_PZ, collapsed_PZ) > 1.5, "all pictures in one point"
    assert agreement_loss(alike_PZ, alike_PZ) > 0.5, "the same number eight times"


def test_the_second_half_of_a_batch_are_views_of_the_first() -> None:
    without = BatchSource(replace(TINY, view_weight=0.0), CPU).batch(0)
    paired = BatchSource(replace(TINY, view_weight=0.5, view_zoom=1.0), CPU).batch(0)

    assert without.x_BCHW.shape == paired.x_BCHW.shape
    first_BX, second_BX = paired.x_BCHW.flatten(1).chunk(2)
    own_B = torch.stack(
        [torch.stack(pair).corrcoef()[0, 1] for pair in zip(first_BX, second_BX, strict=True)]
    )
    assert own_B.nanmedian() > 0.95
    # Targets are those of what is seen: another light, other colours.
    assert not torch.equal(*paired.target_BNT.chunk(2))


def test_pairs_halve_the_different_images_of_a_step() -> None:
    paired = replace(TINY, view_weight=0.5)
    assert TINY.images_a_step == TINY.batch_size == 2 * paired.images_a_step
    assert paired.steps_a_pool == 2 * TINY.steps_a_pool


def test_a_resumed_run_with_views_repeats_the_uninterrupted_one(tmp_path: Path) -> None:
    config = replace(TINY, view_weight=0.5)
    whole, part = Trainer(config), Trainer(config)
    part.run_step()
    part.save(tmp_path / "checkpoint")
    resumed = Trainer.resume(tmp_path / "checkpoint")
    whole.run_step()

    expected, found = whole.run_step(), resumed.run_step()

    assert found.view_loss == expected.view_loss > 0.0
    for name, weight in whole.vit.state_dict().items():
        assert torch.equal(weight, resumed.vit.state_dict()[name]), name
