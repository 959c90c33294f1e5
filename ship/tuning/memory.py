"""Estimate of how many tasks' steps fit into a device's memory at once.

Where it is too low, the allocator's error is answered by smaller groups (``ship.tuning.pack``).
"""

import os
from pathlib import Path

import torch

from ship.backbone_info import BackboneInfo
from ship.settings.config import TuneConfig

__all__ = ["free_bytes", "is_out_of_memory", "step_bytes", "usable_bytes"]

# What autograd keeps of a block for each token, in widths: the inputs of two norms, queries, keys, values,
# two attention outputs, and four widths before the MLP's activation. Products by frozen weights keep nothing.
_KEPT_WIDTHS = 11
# What comes and goes within one block on the way back.
_PASSING_WIDTHS = 22

# The estimate may be off, and others use the device too.
_USABLE_SHARE = 0.7

_SAID_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def step_bytes(
    info: BackboneInfo, config: TuneConfig, num_images: int, dtype: torch.dtype, num_tiles: int = 1
) -> int:
    """Memory that one task adds to a tuning step, by estimate.

    Args:
        info: Description of the backbone.
        config: Settings of the task.
        num_images: Training images of the task; a batch holds no more.
        dtype: Dtype of activations.
        num_tiles: Tiles of a picture.
    """
    batch = min(config.batch_size, num_images)
    batch *= num_tiles
    num_static, num_attribute = (
        (config.num_independent + config.num_shared, config.num_attribute) if config.has_prompts else (0, 0)
    )
    tokens = batch * (info.num_tokens + num_attribute)
    # In the last block every prompt token is there once a sample.
    last_tokens = batch * (num_static + num_attribute + config.top_k + 1)
    attention = batch * info.num_heads * info.num_tokens * (num_static + num_attribute) * info.depth
    widths = tokens * (_KEPT_WIDTHS * info.depth + _PASSING_WIDTHS) + last_tokens * _PASSING_WIDTHS
    return (widths * info.width + 2 * attention) * dtype.itemsize


def free_bytes(device: torch.device) -> int:
    """Memory that a new allocation may take: of the GPU, or of the machine or container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [_machine_free_bytes()]
    limit, used = (_read_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        limits.append(limit - used)
    return max(0, min(limits))


def usable_bytes(device: torch.device, num_sharers: int = 1) -> int:
    """Share of the memory that is free now that steps may take, if so many processes use the device."""
    return int(free_bytes(device) * _USABLE_SHARE) // num_sharers


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how a device, or the machine, says that memory ran out."""
    # torch raises RuntimeError (or a subclass) for both devices and says it in words only.
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in _SAID_OF_MEMORY)
    )


def _machine_free_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    # Not Linux: what is free is not told; half of what there is.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _read_number(file: Path) -> int | None:
    """A number that the kernel tells; None where it says `max`, or nothing."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
