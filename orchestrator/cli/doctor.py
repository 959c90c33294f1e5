"""The command `ship doctor`: what is configured, reachable and consistent, and what to do."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import json_option
from orchestrator.cli.output import EXIT_FAILED, Output

if TYPE_CHECKING:
    from orchestrator.doctor.examination import Examination

__all__ = ["doctor"]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


@click.command()
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=("bundled",),
    show_default=True,
    help="Backbone that serves, as of `ship serve`; repeatable.",
)
@click.option(
    "--endpoint",
    default=lambda: os.environ.get("SHIP_ENDPOINT") or os.environ.get("SHIP_URL"),
    show_default="$SHIP_ENDPOINT, else $SHIP_URL, else none",
    metavar="URL",
    help="Endpoint to look at, too.",
)
@click.option(
    "--deadline",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Most seconds for each check; a large store takes its time.",
)
@click.option("--strict", is_flag=True, help="Let warnings end with status 1, too.")
@json_option
@click.pass_obj
def doctor(
    output: Output,
    backbones: tuple[str, ...],
    endpoint: str | None,
    deadline: float,
    strict: bool,
    as_json: bool,
) -> None:
    """Examine this installation: what is configured, reachable and consistent, and what to do.

    Versions, home and disks, the store (a scratch object is written, read back and removed), the registry and
    whether the store belongs to it, the catalog against rollouts and MLflow as `ship sync` would mend it,
    artifacts, tokens, the audit log, records that wait, Ray, devices, backbones, and an endpoint. Nothing
    else is written, and no secret shown. The exit status is 1 if anything fails.

    \b
    Examples:
      ship doctor
      ship doctor --endpoint http://127.0.0.1:8000 --backbone vit_base_patch16_224.augreg_in21k
      ship doctor --strict --json | jq -r '.rows[] | select(.state != "ok") | .advice'
    """
    from orchestrator.doctor.checks import CHECKS
    from orchestrator.doctor.examination import examine
    from orchestrator.doctor.row import Place

    output.closes_home = False
    place = Place(
        settings=output.settings(),
        objects=output.objects,
        registry=output.registry,
        backbones=backbones,
        endpoint=endpoint,
    )
    with output.err.status("examining"), _quiet():
        found = examine(place, CHECKS, deadline)
    num_failed, num_warned = found.count("fail"), found.count("warn")
    is_well = num_failed == 0 and not (strict and num_warned)
    if as_json:
        rows = [{"check": name, **asdict(row)} for name, row in found]
        output.print_json({"ok": is_well, "failed": num_failed, "warned": num_warned, "rows": rows})
    else:
        _print(output, found)
    if found.hung:
        # Threads that hang, of a store's driver too, would hold up the end of the interpreter.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if is_well else EXIT_FAILED)
    if not is_well:
        sys.exit(EXIT_FAILED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing be logged: what the checks find is in their rows."""
    logger = logging.getLogger("orchestrator")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _print(output: Output, found: "Examination") -> None:
    for name, row in found:
        what = row.what if row.what == name else f"{name}: {row.what}"
        output.print_line(f"{row.state:<7} {what}: {row.found}", style=_STYLES[row.state])
        if row.expected:
            output.print_line(f"        expected: {row.expected}")
        if row.advice:
            output.print_line(f"        do: {row.advice}")
    counts = ", ".join(f"{found.count(state)} {state}" for state in _STYLES)
    output.print_line(f"{counts}.")
