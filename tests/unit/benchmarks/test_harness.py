"""Paired ratios and peak memory. Times are never asserted."""

from collections.abc import Callable
from itertools import count

import pytest
import torch

from tests.benchmarks.harness import compare, peak_bytes

CPU = torch.device("cpu")


def test_ratios_are_paired_by_round_and_per_unit_of_work() -> None:
    rounds, now = count(), 0.0

    def take(seconds: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            # The machine slows down all the time; ratios of the same round hardly change.
            now += seconds * (1 + 0.01 * next(rounds))

        return call

    case = compare(
        {"slow": take(4.0), "fast": take(1.0), "double": take(4.0)},
        [("fast", "slow", 3.0), ("double", "slow", None), ("absent", "slow", None)],
        settings={},
        rounds=5,
        device=CPU,
        work={"double": 2.0},
        clock=lambda: now,
    )
    fast, double = case.ratios
    assert fast.speed == pytest.approx(4.0, rel=0.05)
    assert fast.goal == 3.0
    assert double.speed == pytest.approx(2.0, rel=0.05)


def test_peak_memory_counts_what_a_call_takes() -> None:
    found = peak_bytes(lambda: torch.ones(64 << 20, dtype=torch.uint8).sum(), CPU)
    assert found is None or found >= 60 << 20


def test_peak_memory_counts_again_what_an_earlier_call_has_freed() -> None:
    def take_many_pieces() -> int:
        # Each too small to be given back by itself.
        return sum(len(piece) for piece in [torch.ones(1 << 20, dtype=torch.uint8) for _ in range(64)])

    found = [peak_bytes(take_many_pieces, CPU) for _ in range(2)]
    assert found[1] is None or found[1] >= 50 << 20
