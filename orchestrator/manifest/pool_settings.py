"""What a manifest, or a command, says of the workers."""

from dataclasses import dataclass, fields
from typing import Self

from orchestrator.settings import Executor

__all__ = ["PoolSettings"]


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How a pool of workers is made up. None leaves a value to others.

    Attributes:
        min_workers: Work begins only when there is room for so many; else 1.
        max_workers: As many as there is room for, up to this; else one a GPU, or one a CPU.
        executor: What carries them; else Ray Train.
        max_fused: Tasks that each tunes side by side, at most; else as many as fit and pay.
    """

    min_workers: int | None = None
    max_workers: int | None = None
    executor: Executor | None = None
    max_fused: int | None = None

    def over(self, other: Self) -> Self:
        """These values, and the other's where there are none."""
        chosen = {
            field.name: getattr(other if getattr(self, field.name) is None else self, field.name)
            for field in fields(self)
        }
        if self.max_workers is not None and self.min_workers is None:
            # Who asks for fewer workers than the manifest's minimum means it.
            chosen["min_workers"] = min(self.max_workers, other.min_workers or 1)
        return type(self)(**chosen)
