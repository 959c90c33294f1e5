"""The commands `ship predict` and `ship explain`: clients of an endpoint."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.completion import task_argument
from orchestrator.cli.options import endpoint_options, json_option
from orchestrator.cli.output import EXIT_FAILED, Output

__all__ = ["COMMANDS"]

# A person waits at a terminal; the endpoint makes one explanation at a time.
_PREDICT_PATIENCE_S, _EXPLAIN_PATIENCE_S = 5.0, 10.0


@click.command()
@task_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@endpoint_options
@click.option(
    "--top", default=3, show_default=True, type=click.IntRange(min=1), help="Number of labels to show."
)
@json_option
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

    Shows the decision of the task's rule, which is a label or `unsure` with its reason, and the likeliest
    labels. SHIP_TOKEN holds the token of the client; see `ship token create`. An image that is refused stops
    no other; the exit status is then 1.

    \b
    Examples:
      ship predict bottle-caps cap.png
      ship predict bottle-caps shift-2/*.jpg --url http://serve.plant:8000 --version 3
      ship predict bottle-caps *.png --json | jq -r '.[] | select(.decision == "unsure") | .image'
    """
    from orchestrator.client.client import Client, EndpointError

    answers: list[dict[str, Any]] = []
    with Client(url, patience_s=_PREDICT_PATIENCE_S) as client:
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
    for column in ("decision", f"likeliest {top}", "version"):
        table.add_column(column)
    for answer in answers:
        if "error" in answer:
            table.add_row(escape(answer["image"]), "", escape(answer["error"]), "", style="red")
            continue
        likeliest = list(answer["probabilities"].items())[:top]
        shares = ", ".join(f"{label} {share:.1%}" for label, share in likeliest)
        because = answer["decision_because"]
        decision = answer["decision"] if because is None else f"{answer['decision']}: {because}"
        table.add_row(escape(answer["image"]), escape(decision), escape(shares), str(answer["version"]))
    return table


@click.command()
@task_argument
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o",
    "--out",
    "file",
    type=click.Path(dir_okay=False),
    help="PNG to write [IMAGE's name, -TASK.png, in the working folder].",
)
@endpoint_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print the numbers as JSON; write a picture only for -o."
)
@click.pass_obj
def explain(
    output: Output, task: str, image: str, file: str | None, url: str, version: int | None, as_json: bool
) -> None:
    """Draw where TASK makes the network look in IMAGE, beside where it looks without the task.

    \b
    Examples:
      ship explain bottle-caps cap.png -o heat.png
      ship explain bottle-caps cap.png --json | jq .distance
    """
    from orchestrator.client.client import Client

    path = Path(file) if file is not None else None if as_json else _new_picture(Path(image), task)
    with Client(url, patience_s=_EXPLAIN_PATIENCE_S) as client:
        if not as_json:
            found, drawing = None, client.explain(task, image, version=version)
        elif path is None:
            found, drawing = client.attention(task, image, version=version), None
        else:
            found, drawing = client.explain_whole(task, image, version=version)
    if found is not None:
        output.print_json(asdict(found))
    if path is not None and drawing is not None:
        path.write_bytes(drawing)
        # Standard output is the JSON document's alone.
        (output.err if as_json else output.out).print(f"{path}", markup=False)


def _new_picture(image: Path, task: str) -> Path:
    """The picture's path in the working folder.

    Raises:
        click.UsageError: The working folder may be a data set, which would take the picture for an image.
    """
    folder = Path.cwd()
    is_data = image.resolve().parent == folder or any(
        split in folder.parts or (folder / split).is_dir() for split in ("train", "val", "test")
    )
    if is_data:
        raise click.UsageError(
            f"{folder} may be a data set, which would take the picture for an image; name a file with -o"
        )
    return Path(f"{image.stem}-{task}.png")


COMMANDS = (predict, explain)
