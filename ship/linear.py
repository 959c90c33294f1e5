"""Products with frozen weights in float32, by the library that is the faster one on this processor.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on processors that are not Intel's.
oneDNN, which PyTorch has for convolutions and half precision, uses it on all of them (docs/log.md has times).
"""

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FrozenLinear", "freeze_linears", "linear"]

_CPU_INFO = Path("/proc/cpuinfo")
# Multiplications from which on it pays: its call takes 10 microseconds more.
_MANY = 1 << 20


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, up to rounding; where oneDNN computes it, gradients flow to ``x`` alone.

    Args:
        x: Any shape that ends with the width of the input.
        weight: Width of the output by width of the input. One that is trained is left to ``F.linear``.
        bias: One for each output.
    """
    is_for_onednn = (
        x.numel() * weight.shape[0] >= _MANY
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not weight.requires_grad
        and _is_faster_by_onednn()
    )
    if not is_for_onednn:
        return F.linear(x, weight, bias)
    if x.requires_grad and torch.is_grad_enabled():
        product: Tensor = _FrozenProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return _multiply(x, weight, bias)


class FrozenLinear(nn.Linear):
    """``nn.Linear`` that computes by ``linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """See ``nn.Linear``."""
        return linear(x, self.weight, self.bias)


def freeze_linears(module: nn.Module) -> None:
    """Put a ``FrozenLinear`` in the place of each linear layer in a module, with the same parameters."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            with torch.device("meta"):
                frozen = FrozenLinear(child.in_features, child.out_features, bias=child.bias is not None)
            frozen.weight, frozen.bias = child.weight, child.bias
            setattr(module, name, frozen.train(child.training))
        else:
            freeze_linears(child)


class _FrozenProduct(torch.autograd.Function):
    """The product and its gradient to the input, both by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _multiply(grads[0], weight.t(), None), None, None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # What torch.compile makes of a linear layer on a CPU; nothing else names it in Python.
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return product


@functools.cache
def _is_faster_by_onednn() -> bool:
    # By what the processor is, not by a measurement: a task that is resumed computes as it did before.
    return (
        _vendor() == "AuthenticAMD"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _vendor() -> str:
    """Maker of the processor, as it names itself; empty if that is not known."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        # Windows has it at the end of this.
        return platform.processor().rpartition(" ")[2]
    return next((line.rpartition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
