"""Intervals, ranks and the table."""

import math

import pytest

from tests.benchmarks.accuracy.table import interval, mean_ranks, render


def test_intervals_and_ranks() -> None:
    # t(2; 0.975) = 4.303
    assert interval([0.8, 0.9, 1.0]) == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
    assert math.isnan(interval([0.5]))
    # 0.9 of 400 pictures: 1.96 sqrt(0.09 / 400); seeds that agree add nothing, others widen it.
    assert interval([0.9, 0.9, 0.9], 400) == pytest.approx(1.96 * 0.015, rel=1e-3)
    assert interval([0.89, 0.90, 0.91], 400) > 1.96 * 0.015
    assert interval([0.8, 0.9, 1.0], 10**9) == pytest.approx(interval([0.8, 0.9, 1.0]), rel=1e-3)
    rows = [
        {"task": task, "method": method, "accuracies": [value]}
        for task, values in {"a": (0.9, 0.8, 0.7), "b": (0.5, 0.5, 0.6)}.items()
        for method, value in zip("xyz", values, strict=True)
    ]
    assert mean_ranks(rows) == {"x": 1.75, "y": 2.25, "z": 2.0}
    tripled = [
        {**row, "task": f"{row['task']}-{number}"}
        for row in rows
        for number in range(3 if row["task"] == "a" else 1)
    ]
    assert mean_ranks(tripled) == mean_ranks(rows), "a source counts once, however many tasks it is in"
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
    rows[1] |= {"settings": {"rank": 16}, "at_edge": ["rank"]}
    *lines, edge = render(rows).splitlines()
    words = {line[:22].strip(): line[22:].split() for line in lines}
    assert words["mean"] == ["0.717", "-"], "a mean over fewer tasks is no mean to compare"
    assert words["mean by source"] == ["0.775", "-"]
    assert words["mean rank by source"] == ["1.00", "2.00"]
    assert words["trained, median"] == ["20", "5"]
    assert edge == "at the edge of its grid: x on brick, rank 16"
