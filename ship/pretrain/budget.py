"""Number of steps that fit into a budget of time on this machine, measured by running some.

Time is the CPU's, added up over cores, on a CPU, and the clock's on any other device. Owns the choice of
precision as well: bfloat16 is twice as fast where the CPU multiplies it, and slower where it is emulated, so
both are timed.
"""

import time
from dataclasses import replace

import torch

from ship.pretrain.config import TrainConfig
from ship.pretrain.images import draw_images
from ship.pretrain.train import Trainer

__all__ = ["fit_to_budget"]

_NUM_DRAWN = 128


def fit_to_budget(
    config: TrainConfig, budget_s: float, device: torch.device, num_timed: int = 10
) -> TrainConfig:
    """Set ``num_steps`` and ``bfloat16`` so that a run takes about this long.

    Args:
        config: Configuration of the run.
        budget_s: Seconds of CPU time; of the clock, on another device.
        device: Device to train on.
        num_timed: Steps to time for each precision.
    """
    step_s = {
        bfloat16: _time_step(replace(config, bfloat16=bfloat16), device, num_timed)
        for bfloat16 in (False, True)
    }
    bfloat16 = step_s[True] < step_s[False]
    drawing_s = _time_drawing(config, device) * config.images_a_step / config.num_uses
    num_steps = max(1, int(budget_s / (step_s[bfloat16] + drawing_s)))
    return replace(config, bfloat16=bfloat16, num_steps=num_steps)


def _time_step(config: TrainConfig, device: torch.device, num_timed: int) -> float:
    # A pool of two batches that lasts: drawing is timed apart.
    config = replace(config, pool_size=2 * config.batch_size, num_uses=num_timed, num_calibration=256)
    trial = Trainer(config, device)
    start = trial.run_step()
    for _ in range(num_timed):
        end = trial.run_step()
    spent_s = end.cpu_s - start.cpu_s if device.type == "cpu" else end.wall_s - start.wall_s
    return spent_s / num_timed


def _time_drawing(config: TrainConfig, device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.monotonic
    with device:
        draw_images(_NUM_DRAWN, config.architecture.img_size, 0).x_BCHW.sum().item()
        start_s = clock()
        # Summed up, so that a device that works behind the caller's back is waited for.
        draw_images(_NUM_DRAWN, config.architecture.img_size, 1).x_BCHW.sum().item()
    return (clock() - start_s) / _NUM_DRAWN
