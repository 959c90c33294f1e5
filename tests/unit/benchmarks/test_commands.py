"""The benchmarks of speed run by their commands and write what they measured. Times are never asserted."""

from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
import torch

from tests.benchmarks.__main__ import cli, main
from tests.benchmarks.runtime import LEGEND


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("runtime", set(LEGEND)),
        ("residency", {"of 1", "of 20"}),
        (
            "tuning",
            {"naive", "ours", "pack of 2", "lora", "fine-tuning", "prompt", "low rank", "layer head", "full"},
        ),
        ("store", {"publish", "fetch", "write checkpoint", "read checkpoint"}),
    ],
)
def test_a_benchmark_of_speed_writes_its_rows_and_ratios(
    name: str, rows: set[str], run_benchmark: Callable[..., dict[str, Any]]
) -> None:
    report = run_benchmark(name, "--rounds", "1")
    assert report["benchmark"] == name
    assert report["machine"]["torch"] == torch.__version__
    for case in report["cases"]:
        assert case["rounds"] == 1
        assert all(seconds > 0 for seconds in case["seconds"].values())
        assert all(0 < ratio["low"] <= ratio["speed"] <= ratio["high"] for ratio in case["ratios"])
    # A processor that multiplies in bfloat16 has more rows.
    assert {row for row in report["cases"][0]["seconds"] if not row.endswith("bf16")} == rows
    if name == "store":
        facts = report["cases"][0]["facts"]
        assert facts["prompt bytes"] < facts["checkpoint bytes"]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands(cli)), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    main([*path, "--help"], standalone=False)
    assert f"Usage: python -m tests.benchmarks {' '.join(path)}".rstrip() in capsys.readouterr().out


def test_a_part_takes_only_its_own_options() -> None:
    with pytest.raises(click.NoSuchOption, match="--tasks"):
        main(["serve", "kill", "--tasks", "3"], standalone=False)


def test_the_benchmark_of_precision_counts_changes_of_each_task_and_of_all(
    run_benchmark: Callable[..., dict[str, Any]],
) -> None:
    cases = run_benchmark("precision")["cases"]
    found = {(case["settings"]["task"], case["settings"]["dtype"]): case["facts"] for case in cases}
    assert set(found) == {(t, d) for t in ("digits-5-shot", "all") for d in ("bfloat16", "float16")}
    for dtype in ("bfloat16", "float16"):
        one, both = found["digits-5-shot", dtype], found["all", dtype]
        assert both["pictures"] == one["pictures"] == 20
        assert (both["labels"], both["decisions"]) == (one["labels"], one["decisions"])
        assert 0.0 < one["scores"] < 0.5, "other arithmetic, near float32"
    assert found["digits-5-shot", "float16"]["scores"] < found["digits-5-shot", "bfloat16"]["scores"]
