"""Commands of benchmarks in one process: ``runtime``, ``precision``, ``residency``, ``tuning``, ``store``."""

from typing import TYPE_CHECKING

import click

from tests.benchmarks.options import (
    backbone_option,
    backbones_option,
    device_option,
    json_option,
    quick_option,
    rounds_option,
    speed_options,
)

if TYPE_CHECKING:
    import torch

__all__ = ["COMMANDS"]


@click.command()
@backbones_option
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(1),
    help="Rows of a batch; repeat for more [1 8 32 64].",
)
@click.option(
    "--row",
    "letters",
    multiple=True,
    type=click.Choice(list("abcdefghij")),
    help="First letter of a row; repeat for more [all].",
)
@speed_options
def runtime(
    backbones: tuple[str, ...],
    batches: tuple[int, ...],
    letters: tuple[str, ...],
    rounds: int | None,
    device: "torch.device",
    quick: bool,
    target: str | None,
) -> None:
    """Inference beside the bare backbone, a plain SHIP, LoRA and swapped state dicts.

    \b
    Examples:
      python -m tests.benchmarks runtime --backbone bundled --batch 1 --batch 64
      python -m tests.benchmarks runtime --threads 1 --batch 8 --row a --row e --row j
      python -m tests.benchmarks runtime --device cuda --batch 256 --json runtime.json
    """
    from tests.benchmarks.harness import open_report
    from tests.benchmarks.runtime import LEGEND, run

    with open_report("runtime", LEGEND, target) as report:
        run(
            report,
            names=_names(backbones, quick),
            batches=list(batches) or ([1, 3] if quick else [1, 8, 32, 64]),
            rounds=_rounds(rounds, quick),
            device=device,
            wanted=[row for row in LEGEND if not letters or row[0] in letters],
        )


@click.command()
@backbone_option
@speed_options
def residency(
    backbone: str | None, rounds: int | None, device: "torch.device", quick: bool, target: str | None
) -> None:
    """Thousands of tasks in one runtime: bytes, time to bake, insert and swap, throughput.

    \b
    Examples:
      python -m tests.benchmarks residency --json residency.json
    """
    from tests.benchmarks.harness import open_report
    from tests.benchmarks.residency import LEGEND, run

    with open_report("residency", LEGEND, target) as report:
        run(
            report,
            name=backbone or ("tiny" if quick else "bundled"),
            numbers=[1, 20] if quick else [1, 100, 1_000, 10_000],
            rounds=_rounds(rounds, quick),
            device=device,
        )


@click.command()
@backbones_option
@click.option("--batch-size", type=click.IntRange(1), help="Images of a step of one task [64].")
@click.option("--long", "is_long", is_flag=True, help="Tune a whole task of 1,000 images instead of steps.")
@speed_options
def tuning(
    backbones: tuple[str, ...],
    batch_size: int | None,
    is_long: bool,
    rounds: int | None,
    device: "torch.device",
    quick: bool,
    target: str | None,
) -> None:
    """Tuning steps, alone and in packs, beside a plain SHIP and LoRA; peak memory.

    \b
    Examples:
      python -m tests.benchmarks tuning --backbone vit_base_patch16_224 --batch-size 8
      python -m tests.benchmarks tuning --long --device cuda
    """
    from tests.benchmarks.harness import open_report
    from tests.benchmarks.tuning import LEGEND, run, run_long

    with open_report("tuning", LEGEND, target) as report:
        if is_long:
            for name in _names(backbones, quick):
                run_long(report, name=name, device=device)
            return
        run(
            report,
            names=_names(backbones, quick),
            batch=batch_size or (4 if quick else 64),
            packs=[2] if quick else [2, 4, 8],
            rounds=_rounds(rounds, quick),
            device=device,
            with_memory=not quick,
        )


@click.command()
@backbones_option
@click.option("--store", "url", metavar="URL", help="Store, such as s3://bucket/bench [a temporary folder].")
@rounds_option
@quick_option
@json_option
def store(
    backbones: tuple[str, ...], url: str | None, rounds: int | None, quick: bool, target: str | None
) -> None:
    """Publishing and fetching a prompt beside a checkpoint of the whole backbone.

    \b
    Examples:
      python -m tests.benchmarks store
      python -m tests.benchmarks store --store s3://bucket/bench --backbone bundled
    """
    from tests.benchmarks.harness import open_report
    from tests.benchmarks.store import LEGEND, run

    with open_report("store", LEGEND, target) as report:
        run(report, names=_names(backbones, quick), url=url, rounds=_rounds(rounds, quick))


@click.command()
@backbone_option
@click.option(
    "--task", "tasks", multiple=True, help="Task of `accuracy`; repeat for more [digits, brick, gravel]."
)
@click.option("--steps", type=click.IntRange(1), help="Steps that a task is tuned for [100].")
@click.option(
    "--most", type=click.IntRange(1), default=1_000, show_default=True, help="Test pictures of a task."
)
@device_option
@quick_option
@json_option
def precision(
    backbone: str | None,
    tasks: tuple[str, ...],
    steps: int | None,
    most: int,
    device: "torch.device",
    quick: bool,
    target: str | None,
) -> None:
    """Labels and decisions that half precision changes, on test pictures.

    \b
    Examples:
      python -m tests.benchmarks precision --task digits --json precision.json
      python -m tests.benchmarks precision --device cuda
    """
    from tests.benchmarks.harness import open_report
    from tests.benchmarks.precision import LEGEND, NUM_STEPS, run
    from tests.benchmarks.synthetic import find_backbone

    with open_report("precision", LEGEND, target) as report:
        run(
            report,
            backbone=find_backbone(backbone or ("tiny" if quick else "bundled"), device),
            names=list(tasks) or (["digits-5-shot"] if quick else ["digits", "brick", "gravel"]),
            most=20 if quick else most,
            steps=steps or (2 if quick else NUM_STEPS),
        )


COMMANDS = (precision, residency, runtime, store, tuning)


def _names(backbones: tuple[str, ...], quick: bool) -> list[str]:
    from tests.benchmarks.synthetic import VIT_B

    return list(backbones) or (["tiny"] if quick else ["bundled", VIT_B])


def _rounds(rounds: int | None, quick: bool) -> int:
    return rounds or (2 if quick else 9)
