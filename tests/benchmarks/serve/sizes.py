"""Sizes of the loads on the endpoint."""

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["ServeSizes"]


@dataclass(frozen=True, kw_only=True)
class ServeSizes:
    """Sizes of one part of the benchmark.

    Attributes:
        backbone: Backbone of the endpoint.
        num_tasks: Tasks that are served.
        num_clients: Clients of a closed loop.
        rounds: Rounds of an interleaved comparison.
        round_s: Seconds of each.
        long_s: Seconds of a load under which something happens.
    """

    backbone: str = "bundled"
    num_tasks: int = 20
    num_clients: int = 32
    rounds: int = 5
    round_s: float = 6.0
    long_s: float = 60.0

    @classmethod
    def quick(cls) -> "ServeSizes":
        """Small sizes that show whether a part runs."""
        return cls(backbone="tiny", num_tasks=6, num_clients=4, rounds=2, round_s=1.0, long_s=6.0)

    def with_given(self, **given: Any) -> "ServeSizes":
        """Sizes that were given in place of these; None leaves one as it is."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})
