"""How many steps a budget of CPU time buys on this machine, found out by running some.

Owns the choice of precision as well: bfloat16 is twice as fast where the CPU multiplies it, and slower
where it is emulated, so both are timed.
"""

import time
from dataclasses import replace

from ship.pretrain.config import TrainConfig
from ship.pretrain.images import draw_images
from ship.pretrain.train import Trainer

__all__ = ["fit_to_budget"]

_NUM_DRAWN = 128


def fit_to_budget(config: TrainConfig, cpu_s: float, num_timed: int = 10) -> TrainConfig:
    """Set ``num_steps`` and ``bfloat16`` so that a run takes about this long.

    Args:
        config: What to train.
        cpu_s: Seconds of CPU time, added up over cores.
        num_timed: Steps to time for each precision.
    """
    step_s = {
        bfloat16: _time_step(replace(config, bfloat16=bfloat16), num_timed) for bfloat16 in (False, True)
    }
    bfloat16 = step_s[True] < step_s[False]
    drawing_s = _time_drawing(config) * config.batch_size / config.num_uses
    return replace(config, bfloat16=bfloat16, num_steps=max(1, int(cpu_s / (step_s[bfloat16] + drawing_s))))


def _time_step(config: TrainConfig, num_timed: int) -> float:
    # A pool of two batches that lasts: drawing is timed apart.
    trial = Trainer(replace(config, pool_size=2 * config.batch_size, num_uses=num_timed, num_calibration=256))
    trial.run_step()
    start_s = trial.cpu_s
    for _ in range(num_timed):
        trial.run_step()
    return (trial.cpu_s - start_s) / num_timed


def _time_drawing(config: TrainConfig) -> float:
    size = config.architecture.img_size
    draw_images(_NUM_DRAWN, size, 0)
    start_s = time.process_time()
    draw_images(_NUM_DRAWN, size, 1)
    return (time.process_time() - start_s) / _NUM_DRAWN
