"""Command of the accuracy benchmark."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tests.benchmarks.options import backbone_option, device_option, json_option, quick_option

if TYPE_CHECKING:
    import torch

    from tests.benchmarks.accuracy.comparison import Protocol
    from tests.benchmarks.accuracy.methods import Precision

__all__ = ["accuracy"]


@click.command()
@click.option(
    "--suite",
    type=click.Choice(["small", "industrial"]),
    default="small",
    show_default=True,
    help="Ten small tasks and the bundled backbone, or real parts and DINOv2.",
)
@click.option("--task", "tasks", multiple=True, help="Task; repeat for more [all of the suite].")
@click.option("--method", "methods", multiple=True, help="Method; repeat for more [all but ablations].")
@click.option("--ablation", is_flag=True, help="Measure SHIP with parts taken away as well.")
@click.option("--presets", is_flag=True, help="Measure the presets in place of the methods.")
@click.option("--seeds", type=click.IntRange(1), help="Training runs of the chosen settings [3].")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps of a training run [100].")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images of a step.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option(
    "--image-size",
    type=click.IntRange(1),
    help="Pixels a side that the backbone sees [its own; industrial 224].",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes of one thread.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw a picture as well (.svg, .png).")
@click.option("--vtab", type=click.Path(path_type=Path), help="Folder of VTAB-1k tasks, beside our own.")
@click.option(
    "--pictures",
    envvar="SHIP_PICTURES",
    type=click.Path(path_type=Path),
    help="Folder of extrusion.tar and microstructure.tar [$SHIP_PICTURES].",
)
@backbone_option
@device_option
@quick_option
@json_option
def accuracy(
    suite: str,
    tasks: Sequence[str],
    methods: Sequence[str],
    ablation: bool,
    presets: bool,
    jobs: int,
    picture: Path | None,
    vtab: Path | None,
    pictures: Path | None,
    quick: bool,
    target: str | None,
    backbone: str | None,
    image_size: int | None,
    **effort: Any,
) -> None:
    """Test accuracy beside the linear probe, VPT, LoRA and full fine-tuning.

    The same command resumes from its JSON file after an interruption.

    \b
    Examples:
      python -m tests.benchmarks accuracy --jobs 2 --json accuracy.json --picture accuracy.svg
      python -m tests.benchmarks accuracy --task brick --method ship --method lora --seeds 1
      python -m tests.benchmarks accuracy --suite industrial --pictures ../shared/data --device cuda
    """
    from tests.benchmarks.accuracy.comparison import run

    of_vtab = _find_vtab(vtab)
    if suite == "industrial" and not quick:
        backbone, image_size = backbone or _find_dinov2(), image_size or 224
    folders = _find_folders(of_vtab, pictures)
    found = run(
        _make_protocol(folders, quick, backbone=backbone, image_size=image_size, **effort),
        tasks=_choose_tasks(suite, tasks, of_vtab, quick),
        methods=_choose_methods(methods, ablation, presets),
        jobs=jobs,
        file=Path(target) if target not in (None, "-") else None,
    )
    _show(found, target, picture)


def _find_dinov2() -> str:
    from examples.industrial.backbone import FOLDER

    if not (FOLDER / "config.json").is_file():
        raise click.UsageError(
            f"no backbone in {FOLDER}: `python -m examples.industrial.backbone` writes it from a package; "
            "with a network, `--backbone vit_small_patch14_dinov2.lvd142m` downloads it"
        )
    return f"./{FOLDER}"


def _find_vtab(folder: Path | None) -> dict[str, Path]:
    from tests.benchmarks.accuracy.problem import find_vtab

    return find_vtab(folder) if folder else {}


def _find_folders(of_vtab: dict[str, Path], pictures: Path | None) -> dict[str, Path]:
    from tests.benchmarks.accuracy.suites import SUITES

    return {**(dict.fromkeys(SUITES["industrial"], pictures) if pictures else {}), **of_vtab}


def _make_protocol(
    folders: dict[str, Path],
    quick: bool,
    *,
    backbone: str | None,
    image_size: int | None,
    device: "torch.device",
    seeds: int | None,
    steps: int | None,
    batch_size: int,
    precision: "Precision",
) -> "Protocol":
    from tests.benchmarks.accuracy.comparison import Protocol

    return Protocol(
        backbone=backbone or ("tiny" if quick else "bundled"),
        image_size=image_size,
        device=str(device),
        seeds=seeds or (1 if quick else 3),
        num_steps=steps or (2 if quick else 100),
        batch_size=batch_size,
        precision=precision,
        folders=folders,
    )


def _choose_tasks(suite: str, chosen: Sequence[str], vtab: Iterable[str], quick: bool) -> Sequence[str]:
    from tests.benchmarks.accuracy.suites import SUITES

    known = [*SUITES[suite], *vtab]
    return _checked("task", chosen or (["faces"] if quick else known), known)


def _choose_methods(chosen: Sequence[str], ablation: bool, presets: bool) -> Sequence[str]:
    from tests.benchmarks.accuracy.methods import ABLATIONS, ALL, METHODS, PRESET_ROWS

    usual = ["linear", *PRESET_ROWS] if presets else [*METHODS, *(ABLATIONS if ablation else ())]
    return _checked("method", chosen or usual, ALL)


def _checked(kind: str, chosen: Sequence[str], known: Iterable[str]) -> Sequence[str]:
    if unknown := sorted(set(chosen) - set(known)):
        raise click.UsageError(f"{kind} {', '.join(unknown)}: expected one of {', '.join(known)}")
    return chosen


def _show(found: dict[str, Any], target: str | None, picture: Path | None) -> None:
    from tests.benchmarks.accuracy.table import render

    if picture:
        from tests.benchmarks.accuracy.picture import draw_accuracies

        draw_accuracies(found["rows"], picture)
    print(render(found["rows"]), file=sys.stderr)
    if target == "-":
        print(json.dumps(found, indent=1))
