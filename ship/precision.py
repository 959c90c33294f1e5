"""Dtype of the arithmetic of tuning and serving, by the name of a precision and the device.

Half precision is that of the frozen weights, of activations and of slots. What is tuned, its optimizer, the
losses, prompts as they are baked, heads, distances, decisions and every evaluation are float32. Frozen
weights are cast once: autocast would cast them again in every step, for it remembers only weights that are
trained.
"""

import torch

__all__ = ["compute_dtype", "dtype_name"]

# CPU instructions that multiply bfloat16 matrices; without them it is emulated, at a loss.
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Dtype that a precision means on a device.

    Args:
        precision: ``auto`` for bfloat16 where the device multiplies in it and float32 elsewhere, or the name
            of a dtype.
        device: A CUDA device, or the CPU.
    """
    if precision == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a dtype, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_BFLOAT16)
