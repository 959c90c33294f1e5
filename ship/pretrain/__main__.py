"""Command line of the recipe: parse, call, print."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ship.pretrain.train import Trainer

_BUNDLED = Path(__file__).parents[1] / "assets" / "bundled"
_EXAMPLES = """examples:
  python -m ship.pretrain --out my-backbone             train for 25 minutes of two cores, probe, card
  python -m ship.pretrain --out my-backbone --resume    go on after Ctrl-C, a crash or kill -9
  python -m ship.pretrain --out tiny --minutes 2 --threads 1
  python -m ship.pretrain --out wide --minutes 25 --device cuda --width 192 --batch 512
  python -m ship.pretrain probe                         the bundled backbone, and the same untrained
  python -m ship.pretrain probe --backbone my-backbone --json
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    # Read once, when torch starts its threads: those that spin while they wait burn a shared machine's time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from ship.errors import ShipError

    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["probe"]:
            return _probe(_probe_parser().parse_args(arguments[1:]))
        options = _train_parser().parse_args(arguments)
        torch.set_num_threads(options.threads)
        return _train(options)
    except ShipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _train_parser() -> argparse.ArgumentParser:
    from ship.pretrain.config import TrainConfig

    parser = argparse.ArgumentParser(
        prog="python -m ship.pretrain",
        description="Train the bundled backbone: a small ViT, on pictures that the recipe draws itself.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the card")
    parser.add_argument(
        "--minutes",
        type=float,
        default=25.0,
        help="budget, in minutes of two CPU cores, or on the clock with another --device (default: 25)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="exactly this many steps, instead of --minutes; with --resume: make the run longer or shorter",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and masks (default: 0)")
    parser.add_argument("--width", type=int, default=128, help="of the ViT, in heads of 32 (default: 128)")
    parser.add_argument("--batch", type=int, default=64, help="images a step, a power of 2 (default: 64)")
    for flag, default, what in (
        ("--view-weight", TrainConfig.view_weight, "the agreement of two views"),
        ("--content-weight", TrainConfig.content_weight, "the labels of the drawn contents"),
    ):
        text = f"weight of {what}; 0 trains without them (default: %(default)s)"
        parser.add_argument(flag, type=float, default=default, help=text)
    parser.add_argument("--device", default="cpu", help="draw and train there (default: cpu)")
    parser.add_argument(
        "--threads", type=int, default=2, help="1 is thriftiest on a shared machine (default: 2)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return parser


def _probe_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ship.pretrain probe",
        description="Linear probe and nearest neighbours on frozen features, against the same ViT untrained.",
    )
    parser.add_argument("--backbone", type=Path, default=_BUNDLED, help="folder (default: the bundled one)")
    parser.add_argument("--seeds", type=int, default=5, help="number of splits (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write", action="store_true", help="also rewrite the folder's probe.json and card")
    return parser


def _train(options: argparse.Namespace) -> int:
    from ship.errors import ConfigError
    from ship.pretrain.export import export_backbone
    from ship.pretrain.train import Trainer

    _check(options)
    device = _parse_device(options.device)
    checkpoint = options.out / "checkpoint.safetensors"
    if options.resume:
        trainer = Trainer.resume(checkpoint, options.steps, device)
    elif checkpoint.exists():
        raise ConfigError(f"{checkpoint} exists: pass --resume to go on with it, or remove it to start anew")
    else:
        trainer = _start(options, device)
    print(f"{trainer.config.num_steps} steps, {trainer.config.images_seen:,} images", flush=True)
    _run(trainer, checkpoint)
    export_backbone(trainer, options.out)
    checkpoint.unlink()
    return _probe(_probe_parser().parse_args(["--backbone", str(options.out), "--write"]))


def _check(options: argparse.Namespace) -> None:
    from ship.errors import ConfigError

    if options.minutes <= 0 or options.threads < 1 or (options.steps is not None and options.steps < 1):
        raise ConfigError("--minutes, --threads and --steps must be positive")
    weights = {"--view-weight": options.view_weight, "--content-weight": options.content_weight}
    for flag, weight in weights.items():
        if not 0.0 <= weight <= 100.0:
            raise ConfigError(f"{flag}: expected a number from 0 to 100, got {weight}")
    if options.width < 32 or options.width % 32:
        raise ConfigError(f"--width: expected a multiple of 32, got {options.width}")
    if options.batch not in (16, 32, 64, 128, 256, 512, 1024):
        raise ConfigError(f"--batch: expected a power of 2 from 16 to 1024, got {options.batch}")


def _start(options: argparse.Namespace, device: "torch.device") -> "Trainer":
    from ship.pretrain.budget import fit_to_budget
    from ship.pretrain.config import Architecture, TrainConfig
    from ship.pretrain.train import Trainer

    config = TrainConfig(
        num_steps=1,
        seed=options.seed,
        batch_size=options.batch,
        view_weight=options.view_weight,
        content_weight=options.content_weight,
        architecture=Architecture(embed_dim=options.width, num_heads=options.width // 32),
    )
    # Timed even where --steps is given: precision is chosen by it, too.
    num_cores = 2 if device.type == "cpu" else 1
    config = fit_to_budget(config, options.minutes * 60 * num_cores, device)
    return Trainer(config if options.steps is None else config.with_steps(options.steps), device)


def _parse_device(name: str) -> "torch.device":
    import torch

    from ship.errors import ConfigError

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device: expected one of torch's here, got {name!r}: {error}") from error


def _run(trainer: "Trainer", checkpoint: Path, save_every: int = 200, print_every: int = 20) -> None:
    try:
        while trainer.step < trainer.config.num_steps:
            now = trainer.run_step()
            if now.step % print_every == 0:
                left_s = now.wall_s / now.step * (now.num_steps - now.step)
                print(
                    f"step {now.step}/{now.num_steps}  loss of patches {now.patch_loss:.3f}, images "
                    f"{now.image_loss:.3f}, contents {now.content_loss:.3f}, views {now.view_loss:.3f}  "
                    f"cpu {now.cpu_s / 60:.1f} min  wall {now.wall_s / 60:.1f} min  "
                    f"left {left_s / 60:.1f} min",
                    flush=True,
                )
            if now.step % save_every == 0 or now.step == now.num_steps:
                trainer.save(checkpoint)
    except KeyboardInterrupt:
        print(f"stopped; go on from {checkpoint} with --resume", file=sys.stderr)
        raise


def _probe(options: argparse.Namespace) -> int:
    from ship.pretrain.export import load_exported, write_probe
    from ship.pretrain.probe import format_table, probe_backbone
    from ship.pretrain.probe_tasks import TASKS

    seeds = list(range(options.seeds))
    results = probe_backbone(*load_exported(options.backbone), seeds, list(TASKS))
    if options.write:
        write_probe(results, seeds, options.backbone)
    if options.json:
        print(json.dumps({"seeds": seeds, "tasks": [asdict(result) for result in results]}, indent=2))
    else:
        print(format_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
