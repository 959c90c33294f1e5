"""Commands of the benchmark of the endpoint: ``serve mix``, ``serve engine`` and so on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tests.benchmarks.options import backbone_option, backbones_option, json_option, quick_option
from tests.benchmarks.serve.peers.command import peers

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.benchmarks.harness import Report
    from tests.benchmarks.serve.sizes import ServeSizes

__all__ = ["serve"]

rounds_option = click.option("--rounds", type=click.IntRange(1), help="Interleaved rounds [5].")


@click.group()
@click.option("--haproxy/--no-haproxy", default=None, help="As of `ship serve`.")
@click.pass_context
def serve(context: click.Context, haproxy: bool | None) -> None:
    """The endpoint under load: throughput, promotions, deaths, overload, outages, hours.

    Over HTTP on loopback, with a store, an MLflow and a Ray of its own in a temporary folder.

    \b
    Examples:
      python -m tests.benchmarks serve mix --json mix.json
      python -m tests.benchmarks serve overload --backbone vit_base_patch16_224
      python -m tests.benchmarks serve start --tree . --tree ../before --json start.json
      python -m tests.benchmarks serve soak --seconds 3600
      python -m tests.benchmarks serve --no-haproxy engine --backbone bundled
    """
    from orchestrator.serve.launch.haproxy import haproxy_ingress

    # Before a part imports Ray Serve, which reads it.
    context.with_resource(haproxy_ingress(None, haproxy=haproxy))


def seconds_option(usual: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option for the length of the load under which something happens."""
    return click.option("--seconds", type=click.FloatRange(1.0), help=f"Length of the load [{usual}].")


@serve.command()
@click.option("--tasks", type=click.IntRange(1), help="Number of tasks [500].")
@rounds_option
@backbone_option
@quick_option
@json_option
def mix(tasks: int | None, rounds: int | None, backbone: str | None, quick: bool, target: str | None) -> None:
    """Many tasks by Zipf's law beside one task, interleaved."""
    from tests.benchmarks.serve.comparisons import measure_mix

    with _report(target) as report:
        sizes = _sizes(quick, backbone, rounds=rounds, num_tasks=tasks or (None if quick else 500))
        measure_mix(report, sizes)


@serve.command()
@rounds_option
@backbones_option
@quick_option
@json_option
def engine(rounds: int | None, backbones: Sequence[str], quick: bool, target: str | None) -> None:
    """Throughput over HTTP beside the bare runtime and an app that does nothing."""
    from tests.benchmarks.serve.comparisons import measure_engine
    from tests.benchmarks.synthetic import VIT_B

    with _report(target) as report:
        for name in backbones or (["tiny"] if quick else ["bundled", VIT_B]):
            measure_engine(report, _sizes(quick, name, rounds=rounds))


@serve.command()
@click.option("--promotions", type=click.IntRange(1), help="Promotions, at regular times [100].")
@seconds_option(60)
@backbone_option
@quick_option
@json_option
def swap(
    promotions: int | None, seconds: float | None, backbone: str | None, quick: bool, target: str | None
) -> None:
    """Promotions under load: requests that fail, and replies that are mixed."""
    from tests.benchmarks.serve.events import measure_swap

    with _report(target) as report:
        sizes = _sizes(quick, backbone, long_s=seconds)
        measure_swap(report, sizes, promotions or (4 if quick else 100))


@serve.command()
@click.option(
    "--tree",
    "trees",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Checkout whose `ship serve` is started; repeat to compare, interleaved [this one].",
)
@rounds_option
@backbone_option
@json_option
def start(trees: Sequence[Path], rounds: int | None, backbone: str | None, target: str | None) -> None:
    """Seconds from the command to its first answer, and the memory of every process."""
    from tests.benchmarks.serve.starting import measure_start

    with _report(target) as report:
        measure_start(report, list(trees) or [Path.cwd()], rounds or 5, backbone or "bundled")


def _event(name: str, usual_s: int, text: str) -> None:
    """Add the command of a part whose only size is its length."""

    @serve.command(name, help=text)
    @seconds_option(usual_s)
    @backbone_option
    @quick_option
    @json_option
    def command(seconds: float | None, backbone: str | None, quick: bool, target: str | None) -> None:
        from tests.benchmarks.serve import events

        with _report(target) as report:
            sizes = _sizes(quick, backbone, long_s=seconds or (None if quick else float(usual_s)))
            getattr(events, f"measure_{name}")(report, sizes)


_event(
    "kill",
    60,
    "An ingress, then an engine killed under load and promotions: failed requests, seconds until there are "
    "two again.",
)
_event("overload", 60, "Five times the endpoint's capacity: answers and memory.")
_event("outage", 120, "Neither store nor MLflow for a while: what is in memory, and what is not.")
_event("soak", 600, "Load and promotions for long: growth of memory.")


serve.add_command(peers)


def _report(target: str | None) -> "AbstractContextManager[Report]":
    from tests.benchmarks.harness import open_report
    from tests.benchmarks.serve.measuring import LEGEND

    return open_report("serve", LEGEND, target)


def _sizes(quick: bool, backbone: str | None, **given: Any) -> "ServeSizes":
    from tests.benchmarks.serve.sizes import ServeSizes

    return (ServeSizes.quick() if quick else ServeSizes()).with_given(backbone=backbone, **given)
