"""Command of the comparison: ``serve peers``."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import click

from tests.benchmarks.options import backbones_option, json_option, quick_option

__all__ = ["peers"]

_NAMES = ("ours", "fastapi", "litserve", "ray")


@click.command()
@click.option("--tasks", "tasks", type=click.IntRange(1), multiple=True, help="Tasks; repeatable [1 and 64].")
@click.option("--peer", "names", type=click.Choice(_NAMES), multiple=True, help="Server; repeatable [all].")
@click.option("--rounds", type=click.IntRange(1), help="Rounds in which each server is started [5].")
@click.option("--seconds", type=click.FloatRange(0.5), help="Length of each load [8].")
@click.option("--clients", type=click.IntRange(1), help="Clients of the closed loops [32].")
@click.option("--no-search", is_flag=True, help="Take each server's first settings; do not try others.")
@click.option("--option", "options", multiple=True, help="Argument of `ship serve` besides; repeatable.")
@click.option(
    "--rows",
    "written",
    type=click.Path(exists=True),
    multiple=True,
    help="Measure nothing: print the rows of a report that --json wrote, for a document; repeatable.",
)
@backbones_option
@quick_option
@json_option
def peers(
    tasks: Sequence[int],
    names: Sequence[str],
    rounds: int | None,
    seconds: float | None,
    clients: int | None,
    no_search: bool,
    options: Sequence[str],
    written: Sequence[str],
    backbones: Sequence[str],
    quick: bool,
    target: str | None,
) -> None:
    """The endpoint beside LitServe, FastAPI and Ray Serve with PEFT LoRA.

    Every server is started by itself, on all cores, in each round; it decodes the same JPEGs, and each answer
    is compared with one that was computed in this process. LitServe needs the extra `bench`.

    \b
    Examples:
      python -m tests.benchmarks serve peers --backbone bundled --json peers.json
      python -m tests.benchmarks serve peers --peer ours --peer fastapi --tasks 64 --rounds 3
      python -m tests.benchmarks serve peers --option --prompt-memory --option 4
      python -m tests.benchmarks serve peers --rows peers.json
    """
    if written:
        from tests.benchmarks.serve.peers.figures import render_markdown

        cases = [case for file in written for case in json.loads(Path(file).read_text())["cases"]]
        click.echo(render_markdown(cases))
        return
    # Servers are stopped at SIGTERM as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from tests.benchmarks.harness import open_report
    from tests.benchmarks.serve.peers.measure import LEGEND, PeerSizes, measure_peers
    from tests.benchmarks.synthetic import VIT_B

    sizes = (PeerSizes.quick() if quick else PeerSizes()).with_given(
        rounds=rounds, seconds=seconds, num_clients=clients, is_searched=False if no_search else None
    )
    with open_report("serve peers", LEGEND, target) as report:
        for backbone in backbones or (["tiny"] if quick else ["bundled", VIT_B]):
            for num_tasks in tasks or ((1, 3) if quick else (1, 64)):
                measure_peers(report, backbone, num_tasks, sizes, names or _NAMES, options)
