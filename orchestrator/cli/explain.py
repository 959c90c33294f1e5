"""The command that asks an endpoint what a task looks at: parses, calls, writes a picture."""

from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.cli.options import endpoint_options
from orchestrator.cli.output import Output

__all__ = ["explain"]

# Somebody waits at a terminal; there is one explanation at a time.
PATIENCE_S = 10.0


@click.command()
@click.argument("task")
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o", "--out", "file", type=click.Path(dir_okay=False), help="PNG to write [the image's name, -TASK.png]."
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

    with Client(url, patience_s=PATIENCE_S) as client:
        if as_json:
            found = client.attention(task, image, version=version)
            output.print_json(asdict(found))
            # A reply has one form. The picture is of the version that the numbers are of, whatever a canary
            # or a promotion would choose for another request.
            version = found.version
        if file is not None or not as_json:
            picture = client.explain(task, image, version=version)
            path = Path(file) if file is not None else _beside(Path(image), task)
            path.write_bytes(picture)
            # Standard output is the JSON document's alone.
            (output.err if as_json else output.out).print(f"{path}", markup=False)


def _beside(image: Path, task: str) -> Path:
    return image.with_name(f"{image.stem}-{task}.png")
