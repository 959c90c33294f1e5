"""Final report of the demo: accuracies, sizes and answers."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.table import Table

import ship
from ship.artifact.card import CARD, TENSORS, PromptCard

__all__ = ["print_invitation", "print_results"]

BACKBONE = Path(ship.__file__).parent / "assets" / "bundled" / "model.safetensors"
COLUMNS = ("task", "images", "kind", "linear probe", "tuned", "KB", "version", "answers")


def print_results(
    console: Console, listed: list[dict[str, Any]], answers: dict[str, list[tuple[str, str]]]
) -> None:
    """Print a row for each task, then sizes and means."""
    table = Table(show_edge=False, header_style="bold")
    for column in COLUMNS:
        is_text = column in ("task", "kind", "version", "answers")
        table.add_column(column, justify="left" if is_text else "right")
    measured = []
    for row in listed:
        # A task whose first version the gate refused has no champion: it is shown, but not served.
        version = row["champion"] or row["challenger"]
        metrics = version["metrics"]
        artifact = folder_of(version["source"])
        num_bytes = (artifact / TENSORS).stat().st_size
        measured.append((metrics["probe_accuracy"], metrics["accuracy"], num_bytes / 1024))
        table.add_row(
            row["task"],
            f"{metrics['num_train']:.0f} + {metrics['num_test']:.0f}",
            PromptCard.from_json((artifact / CARD).read_bytes()).config.kind,
            f"{metrics['probe_accuracy']:.3f}",
            f"{metrics['accuracy']:.3f}",
            f"{measured[-1][2]:.0f}",
            f"v{version['version']}",
            ", ".join(describe(*answer) for answer in answers[row["task"]])
            if row["champion"]
            else f"not served: {version['gate']}",
        )
    console.print(table)
    probe, tuned, size = (sum(column) / len(measured) for column in zip(*measured, strict=True))
    console.print(
        f"\nimages: training + held out; accuracies on the latter, mean {probe:.3f} (linear probe) "
        f"and {tuned:.3f} (tuned).\n"
        f"One backbone of {BACKBONE.stat().st_size / 1024:.0f} KB serves all tasks; an adapter takes "
        f"{size:.0f} KB.\nanswers: over HTTP, tasks in mixed order; "
        "the truth in brackets where it differs.",
        soft_wrap=True,
    )


def print_invitation(console: Console, url: str, console_url: str, folder: Path, task: str) -> None:
    """Print the console's address, and commands to try at the running endpoint."""
    picture = next((folder / "data" / task / "test").glob("*/*.png"))
    console.rule("The endpoint and the console stay up until Ctrl-C")
    console.print(
        f"Console: {console_url}, sign in with the token in {folder / 'token'}\n\n"
        f"export SHIP_HOME={folder / '.ship'}\n"
        f"export SHIP_TOKEN=$(cat {folder / 'token'})\n"
        f"ship predict {task} {picture} --url {url}\n"
        f"curl -H \"Authorization: Bearer $SHIP_TOKEN\" -H 'Ship-Task: {task}' -H 'Content-Type: image/png' "
        f"--data-binary @{picture} {url}/v1/predict\n"
        "ship ls\n"
        f"mlflow ui --backend-store-uri sqlite:///{folder / '.ship' / 'mlflow.db'}",
        soft_wrap=True,
    )


def folder_of(source: str) -> Path:
    """The folder of an artifact in the local store."""
    return Path(unquote(urlsplit(source).path))


def describe(label: str, truth: str) -> str:
    """The label of an answer, and the true one where it differs."""
    return label if label == truth else f"{label} ({truth})"
