"""Low-rank updates of a block's linear layers (E. Hu et al., ICLR 2022), for the image tokens of one task.

Prompt tokens go through the frozen layers alone, so that baked keys and values stay exact.

Shapes: L layers, D width, r rank, I inputs and O outputs of a linear layer, X tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

__all__ = ["LinearUpdate", "LowRank", "TaskUpdates"]

# Called with the name of a linear layer (qkv, its parts q and kv, proj, fc1, fc2), its input and its output;
# returns the output with the update added.
LinearUpdate = Callable[[str, Tensor, Tensor], Tensor]


class LowRank(nn.Module):
    """``up @ down`` beside frozen weights, in every layer; starts at zero.

    Attributes:
        down: Name of a linear layer to ``L,r,I``.
        up: Name of a linear layer to ``L,O,r``.
    """

    def __init__(self, sizes: Mapping[str, tuple[int, int]], *, depth: int, rank: int) -> None:
        """Allocate zeros.

        Args:
            sizes: Inputs and outputs of each linear layer that is updated, by name.
            depth: L.
            rank: r.
        """
        super().__init__()
        self.down = nn.ParameterDict(
            {name: torch.zeros(depth, rank, inputs) for name, (inputs, _) in sizes.items()}
        )
        self.up = nn.ParameterDict(
            {name: torch.zeros(depth, outputs, rank) for name, (_, outputs) in sizes.items()}
        )

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """Draw ``down`` uniformly by its fan-in, as PEFT does; ``up`` stays zero."""
        for down_LrI in self.down.values():
            bound = 1.0 / math.sqrt(down_LrI.shape[2])
            down_LrI.uniform_(-bound, bound, generator=generator)

    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Copies of ``down_LrI`` and ``up_LOr`` by the name of their linear layer."""
        return {
            name: (self.down[name].detach().clone(), self.up[name].detach().clone()) for name in self.down
        }

    def has(self, name: str) -> bool:
        """Whether this linear layer, or the one that it is a part of, has an update."""
        return _whole(name) in self.down

    def add(self, layer: int, name: str, x: Tensor, out: Tensor) -> Tensor:
        """The output ``...,X,O`` of a linear layer with the update of its input ``...,X,I``."""
        if not self.has(name):
            return out
        full = _whole(name)
        down_rI, up_Or = self.down[full][layer].to(x.dtype), self.up[full][layer].to(x.dtype)
        width = up_Or.shape[0] // 3
        if name == "q":
            up_Or = up_Or[:width]
        elif name == "kv":
            up_Or = up_Or[width:]
        added: Tensor = out + (x @ down_rI.T) @ up_Or.T
        return added


def _whole(name: str) -> str:
    return "qkv" if name in ("q", "kv") else name


class TaskUpdates:
    """The updates of several tasks in one layer, each for its own stretch of a batch.

    Args:
        updates: One for each stretch; None for a stretch without any.
        layer: The layer.
        sizes: Lengths of the stretches.
        dim: Dimension along which they lie.
    """

    def __init__(
        self, updates: Sequence[LowRank | None], layer: int, sizes: Sequence[int], *, dim: int = 0
    ) -> None:
        self._updates, self._layer, self._sizes, self._dim = updates, layer, list(sizes), dim

    def __call__(self, name: str, x: Tensor, out: Tensor) -> Tensor:
        """See ``LinearUpdate``."""
        # Most linear layers have none: their outputs are not taken apart and copied.
        if not any(update is not None and update.has(name) for update in self._updates):
            return out
        pieces = zip(
            self._updates, x.split(self._sizes, self._dim), out.split(self._sizes, self._dim), strict=True
        )
        added = [part if u is None else u.add(self._layer, name, inputs, part) for u, inputs, part in pieces]
        return torch.cat(added, self._dim) if len(added) > 1 else added[0]
