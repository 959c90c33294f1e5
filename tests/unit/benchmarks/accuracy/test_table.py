"""Intervals, ranks and the table."""

import math

import pytest

from tests.benchmarks.accuracy.table import interval, mean_ranks, render


def test_intervals_and_ranks() -> None:
    # t(2; 0.975) = 4.303
    assert interval([0.8, 0.9, 1.0]) == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
    assert math.isnan(interval([0.5]))
    rows = [
        {"task": task, "method": method, "accuracies": [value]}
        for task, values in {"a": (0.9, 0.8, 0.7), "b": (0.5, 0.5, 0.6)}.items()
        for method, value in zip("xyz", values, strict=True)
    ]
    assert mean_ranks(rows) == {"x": 1.75, "y": 2.25, "z": 2.0}
    unfinished = [*rows, {"task": "c", "method": "x", "accuracies": [1.0]}]
    assert mean_ranks(unfinished) == mean_ranks(rows)


def test_the_table_has_means_ranks_and_how_much_was_trained() -> None:
    rows = [
        {"task": task, "method": method, "accuracies": accuracies, "num_trained": number}
        for task, method, accuracies, number in (
            ("faces", "x", [1.0, 0.9], 10),
            ("brick", "x", [0.5, 0.5], 30),
            ("grass", "x", [0.7, 0.7], 20),
            ("faces", "y", [0.8, 0.8], 5),
        )
    ]
    words = {line[:22].strip(): line[22:].split() for line in render(rows).splitlines()}
    assert words["mean"] == ["0.717", "0.800"]
    assert words["mean of surfaces"] == ["0.600", "-"]
    assert words["mean rank"] == ["1.00", "2.00"]
    assert words["trained, median"] == ["20", "5"]
