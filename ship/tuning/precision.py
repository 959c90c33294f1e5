"""Dtype of a tuning's arithmetic.

Only activations and the frozen weights may be of half precision. What is tuned, its optimizer, the losses,
and every evaluation stay in float32. The frozen weights are cast once a tuning: autocast would cast them
again in every step, for it remembers only weights that are trained.
"""

from typing import Protocol

import torch

__all__ = ["compute_dtype"]

# CPU instructions that multiply bfloat16 matrices; without them it is emulated, at a loss.
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


class HasPrecision(Protocol):
    """Settings that choose a precision."""

    @property
    def precision(self) -> str:
        """``auto``, or the name of a dtype."""


def compute_dtype(config: HasPrecision, device: torch.device) -> torch.dtype:
    """Dtype that ``precision`` means on a device: ``auto`` is bfloat16 where the device multiplies in it."""
    if config.precision == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, config.precision)
    return dtype


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_BFLOAT16)
