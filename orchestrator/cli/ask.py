"""The command that asks an endpoint: parses, calls, prints."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.options import endpoint_options
from orchestrator.cli.output import EXIT_FAILED, Output

__all__ = ["predict"]

# Somebody waits at a terminal.
PATIENCE_S = 5.0


@click.command()
@click.argument("task")
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@endpoint_options
@click.option("--top", default=3, show_default=True, type=click.IntRange(min=1), help="Labels to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def predict(
    output: Output,
    task: str,
    images: tuple[str, ...],
    url: str,
    version: int | None,
    top: int,
    as_json: bool,
) -> None:
    """Ask TASK, at an endpoint of `ship serve`, about IMAGES.

    The token in SHIP_TOKEN says who asks; see `ship token create`. An image that is refused stops no other;
    the exit status is then 1.

    \b
    Examples:
      ship predict bottle-caps cap.png
      ship predict bottle-caps shift-2/*.jpg --url http://serve.plant:8000 --version 3
      ship predict bottle-caps *.png --json | jq -r '.[] | select(.label == "bad") | .image'
    """
    from orchestrator.client.client import Client, EndpointError

    answers: list[dict[str, Any]] = []
    with Client(url, patience_s=PATIENCE_S) as client:
        for image in images:
            try:
                found = client.predict(task, Path(image), version=version)
            except EndpointError as error:
                # What concerns one image leaves the others; anything else would be said of each.
                if error.status not in (413, 415, 422):
                    raise
                answers.append({"image": image, "error": str(error)})
            else:
                answers.append({"image": image, **asdict(found)})
    if as_json:
        output.print_json(answers)
    else:
        output.out.print(_table(answers, top))
    if any("error" in answer for answer in answers):
        sys.exit(EXIT_FAILED)


def _table(answers: list[dict[str, Any]], top: int) -> Table:
    table = Table(show_edge=False, header_style="bold")
    # The end of a path tells images apart; it would be cut off.
    table.add_column("image", overflow="fold")
    for column in ("label", f"likeliest {top}", "version"):
        table.add_column(column)
    for answer in answers:
        if "error" in answer:
            table.add_row(escape(answer["image"]), "", escape(answer["error"]), "", style="red")
            continue
        likeliest = list(answer["probabilities"].items())[:top]
        shares = ", ".join(f"{label} {share:.1%}" for label, share in likeliest)
        table.add_row(
            escape(answer["image"]), escape(answer["label"]), escape(shares), str(answer["version"])
        )
    return table
