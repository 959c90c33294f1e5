"""Images and targets of each step: a pure function of the configuration and the step.

Owns the pool of drawn images, their reuse, and the targets' scale. A killed run needs no stored state to
see the same batches again.

Shapes: B images, C = 3 colours, H and W pixels, N patches, V visible patches, T numbers a patch, F an image,
M kinds of content.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ship.pretrain.config import TrainConfig
from ship.pretrain.images import draw_images
from ship.pretrain.targets import Scaling, fit_scaling, image_targets, orientation_energy, patch_targets
from ship.pretrain.textures import make_generator
from ship.pretrain.views import draw_views

__all__ = ["Batch", "BatchSource"]

_DRAWN_AT_ONCE = 128
_NUM_SYMMETRIES = 8


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images and targets of one step.

    Attributes:
        x_BCHW: Images, normalised as the backbone's users will: mean and standard deviation 0.5. With
            second views, they are the second half, in the order of the first.
        visible_BV: Indices of the patches that the network sees.
        target_BNT: Scaled patch targets.
        target_BF: Scaled image targets.
        contents_BM: Labels of the drawn contents, see ``Drawing``.
    """

    x_BCHW: Tensor
    visible_BV: Tensor
    target_BNT: Tensor
    target_BF: Tensor
    contents_BM: Tensor


class BatchSource:
    """All batches of a run. Keeps the current pool; any step can be asked for in any order.

    Args:
        config: The run's configuration.
        device: Device that draws images and computes targets.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self._device = device
        self._pool_index = -1
        with device:
            calibration_BCHW, contents_BM = _draw(config, "calibration", 0, config.num_calibration)
            self.scaling: Scaling = fit_scaling(
                *self._targets(calibration_BCHW.float() / 255), config.whitening, config.num_axes
            )
            self._pool_BCHW, self._pool_BM = calibration_BCHW[:0], contents_BM[:0]

    def batch(self, step: int) -> Batch:
        """The batch of one step, from a pool that is redrawn when it is used up."""
        with self._device:
            return self._batch(step)

    def _batch(self, step: int) -> Batch:
        config = self.config
        pool, place = divmod(step, config.steps_a_pool)
        if pool != self._pool_index:
            self._pool_BCHW, self._pool_BM = _draw(config, "images", pool, config.pool_size)
            self._pool_index = pool
        use, start = divmod(place * config.images_a_step, config.pool_size)
        order_seed = config.seed_for("order", pool * config.num_uses + use)
        order_B = torch.randperm(config.pool_size, generator=make_generator(order_seed))
        chosen_B = order_B[start : start + config.images_a_step]
        x_BCHW, contents_BM = self._pool_BCHW[chosen_B].float() / 255, self._pool_BM[chosen_B]
        x_BCHW = torch.cat([_turn(part, i) for i, part in enumerate(x_BCHW.chunk(_NUM_SYMMETRIES))])
        if config.view_weight:
            generator = make_generator(config.seed_for("views", step))
            x_BCHW = torch.cat([x_BCHW, draw_views(x_BCHW, config.view_zoom, generator)])
            contents_BM = contents_BM.repeat(2, 1)
        patches_BNT, images_BG = self._targets(x_BCHW)
        return Batch(
            x_BCHW=(x_BCHW - 0.5) / 0.5,
            visible_BV=self._choose_visible(step),
            target_BNT=self.scaling.patches(patches_BNT),
            target_BF=self.scaling.images(images_BG),
            contents_BM=contents_BM,
        )

    def _targets(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        energy_BOHW = orientation_energy(x_BCHW)
        patches_BNT = patch_targets(x_BCHW, energy_BOHW, self.config.architecture.patch_size)
        return patches_BNT, image_targets(x_BCHW, energy_BOHW, patches_BNT)

    def _choose_visible(self, step: int) -> Tensor:
        config = self.config
        generator = make_generator(config.seed_for("masks", step))
        rank_BN = torch.rand(config.batch_size, config.architecture.num_patches, generator=generator)
        return rank_BN.argsort(1)[:, : config.num_visible]


def _draw(config: TrainConfig, stream: str, pool: int, num: int) -> tuple[Tensor, Tensor]:
    """Images in uint8, a quarter of the memory and the precision that pictures come with, and contents."""
    num_parts = math.ceil(num / _DRAWN_AT_ONCE)
    size = config.architecture.img_size
    parts = [
        draw_images(min(num, _DRAWN_AT_ONCE), size, config.seed_for(stream, pool * num_parts + part))
        for part in range(num_parts)
    ]
    x_BCHW = torch.cat([(part.x_BCHW * 255).round_().to(torch.uint8) for part in parts])[:num]
    return x_BCHW, torch.cat([part.contents_BM for part in parts])[:num]


def _turn(x_BCHW: Tensor, which: int) -> Tensor:
    """One of the eight symmetries of a square."""
    x_BCHW = x_BCHW.transpose(-1, -2) if which & 1 else x_BCHW
    return x_BCHW.flip([dim for bit, dim in ((2, -1), (4, -2)) if which & bit])
