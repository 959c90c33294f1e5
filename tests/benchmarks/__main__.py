"""Command line of the benchmarks: ``python -m tests.benchmarks SUBCOMMAND``.

A benchmark is imported by its command: a machine for timings may lack Ray, MLflow or scikit-image.
"""

from collections.abc import Sequence

import click

from tests.benchmarks import speed
from tests.benchmarks.accuracy.command import accuracy
from tests.benchmarks.console import console
from tests.benchmarks.decoding import decoding
from tests.benchmarks.drift import drift
from tests.benchmarks.fleet.commands import fleet
from tests.benchmarks.serve.commands import serve
from tests.benchmarks.tracing import tracing

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Measure SHIP beside what people would use instead: interleaved, by medians of paired ratios.

    Tables go to standard error, JSON to where --json says.

    \b
    Examples:
      python -m tests.benchmarks runtime --backbone bundled --batch 1 --batch 64
      python -m tests.benchmarks runtime --device cuda --batch 256
      python -m tests.benchmarks tuning --backbone vit_base_patch16_224 --batch-size 8 --json tuning.json
      python -m tests.benchmarks accuracy --jobs 2 --json accuracy.json --picture accuracy.svg
      python -m tests.benchmarks console --rounds 9
      python -m tests.benchmarks fleet overhead --tasks 500 --json overhead.json
      python -m tests.benchmarks serve mix --json mix.json
      python -m tests.benchmarks residency --json | jq '.cases[0].facts'
    """


for command in (*speed.COMMANDS, accuracy, console, decoding, drift, fleet, serve, tracing):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, *, standalone: bool = True) -> None:
    """Run one benchmark.

    Args:
        arguments: In place of the process's own.
        standalone: Whether the process exits with a status; otherwise errors are raised.
    """
    cli.main(arguments, prog_name="python -m tests.benchmarks", standalone_mode=standalone)


if __name__ == "__main__":
    main()
