"""Commands on kept pictures: review ls, label, undo, export, import, retune."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.completion import task_argument
from orchestrator.cli.options import author_options, json_option
from orchestrator.cli.output import Output, format_time, printable

if TYPE_CHECKING:
    from orchestrator.store.documents.audit import Author
    from orchestrator.store.kept.picture_files import Exported
    from orchestrator.store.kept.reviews import Reviewed, Reviews

__all__ = ["review"]

_LIMIT = 50
_LEFT_OUT = "-"
_manifest_option = click.option(
    "--manifest",
    "-m",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Manifest of TASK: pictures that its data have are left out, those of its `more` are taken over.",
)
_folder_option = click.option(
    "--output",
    "-o",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder for the table and the pictures [review/TASK in the home].",
)
_format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "label-studio"]),
    default="csv",
    show_default=True,
    help="A table for a manifest, or tasks of Label Studio.",
)


@click.group()
def review() -> None:
    """Label the pictures that the endpoint kept, and tune with them.

    `ship serve --keep` says which are kept. A label against what the endpoint answered needs a second
    person, and so does one against another person's.

    \b
    Examples:
      ship review ls bottle-caps
      ship review label bottle-caps 5f3ab0 scratch
      ship review export bottle-caps -o more/
      ship review retune bottle-caps -m lines.yaml
    """


@review.command(name="ls")
@task_argument
@click.option("--state", type=click.Choice(["open", "second", "settled", "left out"]), help="Only these.")
@click.option("--limit", type=click.IntRange(min=1), default=_LIMIT, show_default=True, help="Most to list.")
@json_option
@click.pass_obj
def list_pictures(output: Output, task: str, state: str | None, limit: int, as_json: bool) -> None:
    """List the pictures that are kept of TASK, the newest first, and what persons said of them.

    \b
    Examples:
      ship review ls bottle-caps --state open
      ship review ls bottle-caps --json | jq -r '.pictures[] | select(.reason == "far") | .picture'
    """
    from orchestrator.store.kept.reviews import as_values

    found = _pictures(output, task)
    chosen = [one for one in found if state is None or one.review.state == state]
    counts = _count(found)
    if as_json:
        output.print_json(
            {"task": task, "counts": counts, "pictures": [as_values(one) for one in chosen[:limit]]}
        )
        return
    if not found:
        output.print_line(
            f"{task}: no picture is kept; `ship serve --keep unsure,sample=0.01` keeps some from then on."
        )
        return
    table = Table(show_edge=False, header_style="bold")
    for column in ("picture", "kept", "because", "answered", "state", "label", "said"):
        table.add_column(column, overflow="fold")
    for one in chosen[:limit]:
        table.add_row(*(escape(printable(cell)) for cell in _row(one)))
    output.out.print(table)
    output.print_line(f"{len(found)} pictures: " + ", ".join(f"{num} {word}" for word, num in counts.items()))


@review.command()
@task_argument
@click.argument("picture")
@click.argument("label", metavar="LABEL|-")
@author_options
@json_option
@click.pass_obj
def label(output: Output, task: str, picture: str, label: str, author: "Author", as_json: bool) -> None:
    """Say that PICTURE of TASK shows LABEL; - leaves it out, as it shows nothing that can be told.

    PICTURE is the start of the digest that `ship review ls` lists. A label takes the place of the one that
    the same person gave before.

    \b
    Examples:
      ship review label bottle-caps 5f3ab0 scratch
      ship review label bottle-caps 5f3ab0 - --as maria
    """
    reviews = _reviews(output)
    whole = _find(reviews, task, picture)
    given = {whole: None if label == _LEFT_OUT else label}
    _show(output, whole, reviews.label(task, given, author)[whole].describe(), as_json=as_json)


@review.command()
@task_argument
@click.argument("picture")
@author_options
@json_option
@click.pass_obj
def undo(output: Output, task: str, picture: str, author: "Author", as_json: bool) -> None:
    """Take back what you said of PICTURE of TASK.

    \b
    Example:
      ship review undo bottle-caps 5f3ab0
    """
    reviews = _reviews(output)
    whole = _find(reviews, task, picture)
    _show(output, whole, reviews.undo(task, whole, author).describe(), as_json=as_json)


@review.command()
@task_argument
@_folder_option
@_format_option
@_manifest_option
@json_option
@click.pass_obj
def export(
    output: Output, task: str, folder: Path | None, format_: str, manifest: str | None, as_json: bool
) -> None:
    """Write the kept pictures of TASK into a folder, with a table of their labels.

    The table has the pictures whose label is settled. A manifest takes it as `data: {path: ..., more:
    FOLDER/labels.csv}`: for training alone, so that held-out pictures stay the same. It takes over what
    FOLDER/labels.csv and the manifest's `more` have, but for labels that were taken back. For Label Studio
    all pictures are written, with what was answered as predictions.

    \b
    Examples:
      ship review export bottle-caps -o more/ -m lines.yaml
      ship review export bottle-caps --format label-studio -o studio/
    """
    from orchestrator.store.kept.retuning import export_new
    from orchestrator.store.kept.review_files import export_label_studio

    pictures = _pictures(output, task)
    reviews, place = _reviews(output), _place(output, task, folder)
    if format_ == "csv":
        found = export_new(reviews, task, manifest, place)
    else:
        found = export_label_studio(reviews.kept, pictures, reviews.labels(task), place)
    if as_json:
        output.print_json({**vars(found), "path": str(found.path)})
    else:
        output.print_line(_said(found))


@review.command(name="import")
@task_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@author_options
@json_option
@click.pass_obj
def import_labels(output: Output, task: str, file: Path, author: "Author", as_json: bool) -> None:
    """Take the labels of TASK in FILE, which Label Studio exported as JSON.

    Its tasks are those of `ship review export --format label-studio`. Each label is its annotator's; who
    imported it is in the audit log.

    \b
    Example:
      ship review import bottle-caps project-1-at-2026-11-27.json
    """
    from orchestrator.store.kept.review_files import read_label_studio

    given = read_label_studio(file.read_bytes(), task)
    reviews = _reviews(output)
    reviews.take_over(task, given, author)
    if as_json:
        output.print_json({"task": task, "num_labels": len(given)})
    else:
        output.print_line(f"{task}: {len(given)} labels taken over.")


@review.command()
@task_argument
@click.option(
    "--manifest", "-m", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="Its manifest."
)
@_folder_option
@click.option("--dry-run", is_flag=True, help="Write the manifest of the new tuning, and tune nothing.")
@click.pass_context
def retune(context: click.Context, task: str, manifest: str, folder: Path | None, dry_run: bool) -> None:
    """Tune TASK anew with its settled labels, and compare with the champion on the same held-out pictures.

    The settings are those of the manifest; FOLDER gets the pictures, their table, and retune.yaml, which
    `ship tune` takes as well. The gate decides whether the new version serves. The table takes over what the
    one before and the manifest's `more` have. Keep it: name it in the manifest as the task's `more`, in place
    of an earlier one, or the next run of that tunes without it.

    \b
    Examples:
      ship review retune bottle-caps -m lines.yaml
      ship review retune bottle-caps -m lines.yaml --dry-run
    """
    from orchestrator.store.kept.retuning import prepare_retuning

    output: Output = context.obj
    found = prepare_retuning(_reviews(output), task, manifest, _place(output, task, folder))
    output.print_line(_said(found.exported))
    output.print_line(f"Manifest: {found.manifest}")
    if not dry_run:
        _tune_and_compare(context, output, task, str(found.manifest))


def _tune_and_compare(context: click.Context, output: Output, task: str, part: str) -> None:
    from orchestrator.cli.manifest import tune
    from orchestrator.cli.pictures import compare
    from orchestrator.registry.versions import CHAMPION

    before = output.registry().versions(task)
    champion = next((one.version for one in before if CHAMPION in one.aliases), None)
    status: Any = 0
    try:
        context.invoke(tune, manifest=part)
    except SystemExit as error:
        status = error.code
    after = output.registry().versions(task)
    new = max(one.version for one in after)
    if champion is not None and new not in {one.version for one in before}:
        context.invoke(compare, task=task, first=champion, second=new)
    sys.exit(status)


def _pictures(output: Output, task: str) -> "list[Reviewed]":
    """The kept pictures of a task; the registry has to know one of which none are kept."""
    found = _reviews(output).pictures(task)
    if not found:
        output.registry().versions(task)
    return found


def _reviews(output: Output) -> "Reviews":
    from orchestrator.store.kept.reviews import Reviews

    return Reviews(output.prompt_store())


def _place(output: Output, task: str, folder: Path | None) -> Path:
    from orchestrator.store.kept.picture_files import review_folder

    return folder or review_folder(output.settings().home, task)


def _find(reviews: "Reviews", task: str, start: str) -> str:
    """The picture whose digest begins so."""
    from orchestrator.errors import ManifestError

    found = [
        one.picture for one in reviews.kept.files(task) if one.is_whole and one.picture.startswith(start)
    ]
    if len(found) != 1 or not start:
        number = len(found) if start else "any number of"
        raise ManifestError(
            f"picture {start[:80]!r}: expected the start of one of task {task!r}, found {number}; `ship "
            f"review ls {task}` lists them"
        )
    return found[0]


def _count(found: "list[Reviewed]") -> dict[str, int]:
    states = [one.review.state for one in found]
    return {state: states.count(state) for state in ("open", "second", "settled", "left out")}


def _row(one: "Reviewed") -> tuple[str, ...]:
    said = ", ".join(f"{opinion.by}: {opinion.label or 'left out'}" for opinion in one.review.opinions)
    kept = one.kept
    answered = (
        kept.decision if kept.because is None else f"unsure ({kept.because}), {kept.probabilities[0][0]}"
    )
    state = "needs a second person" if one.review.state == "second" else one.review.state
    return (
        kept.picture[:12],
        format_time(kept.time_s),
        kept.reason,
        answered,
        state,
        one.review.label or "",
        said,
    )


def _show(output: Output, picture: str, told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json({"picture": picture, **told})
        return
    state = "needs a second person" if told["state"] == "second" else told["state"]
    named = f": {told['label']}" if told["label"] else ""
    output.print_line(f"{picture[:12]}: {state}{named}")


def _said(found: "Exported") -> str:
    told = [
        f"{found.num_pictures} pictures in {found.path}",
        f"{found.num_earlier} of them from before" if found.num_earlier else "",
        f"{found.num_known} are in the data already" if found.num_known else "",
        f"{found.num_taken_back} left out, not settled any longer" if found.num_taken_back else "",
    ]
    return "; ".join(filter(None, told))
