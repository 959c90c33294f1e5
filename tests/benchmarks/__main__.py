"""``ship bench NAME``, or ``python -m tests.benchmarks NAME`` where only torch and timm are installed."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tests.benchmarks import residency, runtime, store, tuning
from tests.benchmarks.harness import Report, describe_machine
from tests.benchmarks.synthetic import VIT_B

NAMES = ["runtime", "residency", "tuning", "store", "accuracy", "fleet", "serve"]
EXAMPLES = """Examples:
  ship bench runtime --backbone bundled --batch 1 --batch 64
  ship bench tuning --backbone vit_base_patch16_224 --batch-size 8 --json tuning.json
  ship bench accuracy --jobs 2 --json accuracy.json --picture accuracy.svg   # again, to go on after Ctrl-C
  ship bench fleet --part overhead --tasks 500 --json fleet.json
  ship bench serve --part mix --part swap --json serve.json
  ship bench residency --json | jq '.cases[0].facts'
  python -m tests.benchmarks runtime --device cuda --batch 256    # where ship is not installed
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark: tables go to standard error, JSON to where it is wanted."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.name == "accuracy":
        run_accuracy(options)
        return
    if options.name == "fleet":
        run_fleet(options)
        return
    if options.name == "serve":
        run_serve(options)
        return
    module = {"runtime": runtime, "residency": residency, "tuning": tuning, "store": store}[options.name]
    report = Report(benchmark=options.name, legend=module.LEGEND, machine=describe_machine())
    print(f"{options.name}: " + ", ".join(f"{k} {v}" for k, v in report.machine.items()), file=sys.stderr)
    rounds = options.rounds or (2 if options.quick else 9)
    names = options.backbone or (["tiny"] if options.quick else ["bundled", VIT_B])
    if options.name == "runtime":
        batches = options.batch or ([1, 3] if options.quick else [1, 8, 32, 64])
        with_compiled = options.compile or device.type == "cuda"
        runtime.run(
            report,
            names=names,
            batches=batches,
            rounds=rounds,
            device=device,
            with_compiled=with_compiled,
        )
    elif options.name == "residency":
        numbers = [1, 20] if options.quick else [1, 100, 1_000, 10_000]
        residency.run(report, name=names[0], numbers=numbers, rounds=rounds, device=device)
    elif options.name == "tuning":
        run_tuning(report, options, names, rounds, device)
    else:
        store.run(report, names=names, url=options.store, rounds=rounds)
    for reason in dict.fromkeys(report.skipped):
        print(f"skipped {reason}", file=sys.stderr)
    report.write(options.json)


def run_accuracy(options: argparse.Namespace) -> None:
    """Imported here: the tasks need scikit-image, which a machine for timings may lack."""
    from tests.benchmarks.accuracy import comparison
    from tests.benchmarks.accuracy.methods import ABLATIONS, ALL, METHODS, PRESET_ROWS
    from tests.benchmarks.accuracy.picture import draw_accuracies
    from tests.benchmarks.accuracy.tasks import TASKS, find_vtab

    vtab = find_vtab(options.vtab) if options.vtab else {}
    tasks = options.task or (["faces"] if options.quick else [*TASKS, *vtab])
    methods = options.method or (
        ["linear", *PRESET_ROWS] if options.presets else [*METHODS, *(ABLATIONS if options.ablation else ())]
    )
    for kind, chosen, known in (
        ("task", tasks, [*TASKS, *vtab]),
        ("method", methods, list(ALL)),
    ):
        if unknown := sorted(set(chosen) - set(known)):
            sys.exit(f"error: {kind} {', '.join(unknown)}: expected one of {', '.join(known)}")
    [name] = options.backbone or (["tiny"] if options.quick else ["bundled"])
    protocol = comparison.Protocol(
        backbone=name,
        device=options.device,
        seeds=options.seeds or (1 if options.quick else 3),
        num_steps=options.steps or (2 if options.quick else 100),
        batch_size=options.batch_size or 32,
        precision=options.precision,
        vtab=vtab,
    )
    file = Path(options.json) if options.json not in (None, "-") else None
    found = comparison.run(protocol, tasks=tasks, methods=methods, jobs=options.jobs, file=file)
    if options.picture:
        draw_accuracies(found["rows"], options.picture)
    print(comparison.render(found["rows"]), file=sys.stderr)
    if options.json == "-":
        print(json.dumps(found, indent=1))


def run_fleet(options: argparse.Namespace) -> None:
    """Imported here: it needs Ray and MLflow, which a machine for timings may lack."""
    from tests.benchmarks.fleet import parts as fleet

    parts = options.part or list(fleet.PARTS)
    if unknown := sorted(set(parts) - set(fleet.PARTS)):
        sys.exit(f"error: part {', '.join(unknown)}: expected one of {', '.join(fleet.PARTS)}")
    sizes = fleet.FleetSizes.quick() if options.quick else fleet.FleetSizes()
    if options.backbone:
        sizes = replace(sizes, backbone=options.backbone[0])
    if options.tasks:
        sizes = sizes.with_tasks(options.tasks)
    report = Report(benchmark="fleet", legend=fleet.LEGEND, machine=describe_machine())
    fleet.run(report, sizes=sizes, parts=parts)
    report.write(options.json)


def run_serve(options: argparse.Namespace) -> None:
    """Imported here: it needs Ray and MLflow, which a machine for timings may lack."""
    from tests.benchmarks.serve import parts as serve

    parts = options.part or list(serve.PARTS)
    if unknown := sorted(set(parts) - set(serve.PARTS)):
        sys.exit(f"error: part {', '.join(unknown)}: expected one of {', '.join(serve.PARTS)}")
    sizes = serve.ServeSizes.quick() if options.quick else serve.ServeSizes()
    if options.backbone:
        sizes = replace(sizes, backbone=options.backbone[0], engines=tuple(options.backbone))
    if options.tasks:
        sizes = replace(sizes, num_tasks=options.tasks)
    report = Report(benchmark="serve", legend=serve.LEGEND, machine=describe_machine())
    serve.run(report, sizes=sizes, parts=parts)
    report.write(options.json)


def run_tuning(
    report: Report, options: argparse.Namespace, names: list[str], rounds: int, device: torch.device
) -> None:
    """Steps, and with ``--long`` a whole task instead."""
    if options.long:
        for name in names:
            tuning.run_long(report, name=name, device=device)
        return
    tuning.run(
        report,
        names=names,
        batch=options.batch_size or (4 if options.quick else 64),
        packs=[2] if options.quick else [2, 4, 8],
        rounds=rounds,
        device=device,
        with_memory=not options.quick,
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ship bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.description = "Measure beside what people would use instead, interleaved, by paired ratios."
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--backbone", action="append", help="again for more [bundled and ViT-B/16]")
    parser.add_argument(
        "--batch", action="append", type=int, help="runtime: rows; again for more [1 8 32 64]"
    )
    parser.add_argument("--batch-size", type=int, help="images a step of one task [tuning 64, accuracy 32]")
    parser.add_argument("--rounds", type=int, help="times that each row is run [9]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--threads", type=int, help="of torch [all cores]")
    parser.add_argument("--store", help="store: a URL such as s3://bucket/bench [a temporary folder]")
    parser.add_argument("--long", action="store_true", help="tuning: a whole task of 1,000 images")
    parser.add_argument("--compile", action="store_true", help="runtime: compiled rows too [on CUDA]")
    parser.add_argument("--task", action="append", help="accuracy: again for more [all]")
    parser.add_argument("--method", action="append", help="accuracy: again for more [all but ablations]")
    parser.add_argument("--ablation", action="store_true", help="accuracy: also SHIP with parts taken away")
    parser.add_argument("--presets", action="store_true", help="accuracy: the presets instead of methods")
    parser.add_argument("--seeds", type=int, help="accuracy: training runs of the chosen settings [3]")
    parser.add_argument("--steps", type=int, help="accuracy: optimizer steps of a training [100]")
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="accuracy [float32]"
    )
    parser.add_argument("--jobs", type=int, default=1, help="accuracy: processes of one thread each [1]")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="accuracy: also a picture (.svg, .png)")
    parser.add_argument("--vtab", type=Path, help="accuracy: folder of VTAB-1k tasks, beside our own")
    parser.add_argument("--part", action="append", help="fleet, serve: again for more [all]")
    parser.add_argument("--tasks", type=int, help="fleet: of each part [500, 10,000 or 12]; serve [500]")
    parser.add_argument("--quick", action="store_true", help="a tiny backbone, two rounds: does it run?")
    parser.add_argument("--json", metavar="FILE", nargs="?", const="-", help="also JSON [standard output]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
