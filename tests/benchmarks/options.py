"""Options that several benchmarks share."""

from collections.abc import Callable
from typing import Any

import click

__all__ = [
    "Command",
    "backbone_option",
    "backbones_option",
    "device_option",
    "json_option",
    "quick_option",
    "rounds_option",
    "speed_options",
]

Command = Callable[..., None]


def _set_threads(_: click.Context, __: click.Parameter, number: int | None) -> None:
    import torch

    if number:
        torch.set_num_threads(number)


def _as_device(_: click.Context, __: click.Parameter, name: str) -> Any:
    import torch

    return torch.device(name)


json_option = click.option(
    "--json",
    "target",
    metavar="FILE",
    is_flag=False,
    flag_value="-",
    help="Write JSON as well [standard output].",
)
quick_option = click.option("--quick", is_flag=True, help="A tiny backbone and small sizes: does it run?")
backbone_option = click.option("--backbone", help="Backbone [bundled].")
backbones_option = click.option(
    "--backbone", "backbones", multiple=True, help="Backbone; repeat for more [bundled and ViT-B/16]."
)
rounds_option = click.option("--rounds", type=click.IntRange(1), help="Times that each row is run [9].")
device_option = click.option(
    "--device", default="cpu", show_default=True, callback=_as_device, help="Device, such as cuda."
)
_threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    expose_value=False,
    callback=_set_threads,
    help="Threads of torch [all cores].",
)


def speed_options(command: Command) -> Command:
    """Options of a benchmark of speed in this process."""
    return rounds_option(device_option(_threads_option(quick_option(json_option(command)))))
