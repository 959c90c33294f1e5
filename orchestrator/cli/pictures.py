"""Commands on the pictures that a version answers: mistakes, eval, compare."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import Progress

from orchestrator.cli.completion import task_argument
from orchestrator.cli.options import json_option, read_source
from orchestrator.cli.output import Output, printable
from orchestrator.cli.picture_report import print_comparison, print_report
from ship.data.source import FORMATS

if TYPE_CHECKING:
    from orchestrator.registry.evidence import Evidence
    from ship.data import DataSource
    from ship.data.items import SplitName

__all__ = ["COMMANDS"]

_LIMIT = 20
_SPLITS = ("train", "val", "test")

_version_option = click.option(
    "--version",
    type=click.IntRange(min=1),
    help="Version to look at [the champion, else the challenger, else the newest].",
)
_good_option = click.option(
    "--good",
    metavar="LABEL",
    help="Class of the parts that are in order [the one called good, ok, normal or pass, if there is one].",
)
_limit_option = click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Pictures to list, at most [{_LIMIT}; all with --json or --html].",
)
_html_option = click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write a page with thumbnails: one file, which needs nothing else.",
)
_format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="Format of DATA [told by what is there].",
)
_split_option = click.option(
    "--split", type=click.Choice(_SPLITS), help="Split of DATA to take, as tuning would cut it [all images]."
)
_backbone_option = click.option(
    "--backbone",
    metavar="NAME|FOLDER",
    help="Place of the backbone, if it is not where the artifact says.",
)


@click.command()
@task_argument
@_version_option
@_good_option
@_html_option
@_limit_option
@json_option
@click.pass_obj
def mistakes(
    output: Output,
    task: str,
    version: int | None,
    good: str | None,
    page: Path | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the held-out pictures that TASK got wrong when it was tuned, the worst first.

    False accepts come first (defects that were answered with the good class), then the most certain
    mistakes; each with its label, the answer, both probabilities, the decision, and the answer of the linear
    probe. They are kept with the version; nothing is computed again.

    \b
    Examples:
      ship mistakes bottle-caps
      ship mistakes bottle-caps --version 3 --html mistakes.html
      ship mistakes bottle-caps --json | jq -r '.mistakes[] | select(.is_false_accept) | .path'
    """
    from orchestrator.registry.evidence import choose_version, read_held_out

    info = choose_version(output.registry(), task, version)
    found = read_held_out(output.prompt_store(), task, info)
    _show(output, {"task": task, "version": found.version, "data": None}, found, good, page, limit, as_json)


@click.command(name="eval")
@task_argument
@click.argument("data", metavar="DATA")
@_version_option
@_format_option
@_split_option
@_backbone_option
@_good_option
@_html_option
@_limit_option
@json_option
@click.pass_obj
def evaluate(
    output: Output,
    task: str,
    data: str,
    version: int | None,
    format_: str | None,
    split: "SplitName | None",
    backbone: str | None,
    good: str | None,
    page: Path | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Measure a version of TASK on the labelled images of DATA, on this machine.

    DATA is a path or URL of class folders or of a CSV or Parquet file, or a JSON mapping as a task's `data`
    in a manifest. Its classes have to be some of the task's. All its images are measured, unless --split
    takes a part; of data that the version was tuned on, only --split test is a fair measure.

    \b
    Examples:
      ship eval bottle-caps data/shift-2
      ship eval bottle-caps data/caps --split test --version 3 --html caps.html
      ship eval bottle-caps '{"path": "caps.csv", "image_root": "s3://plant/caps"}' --json | jq .accuracy
    """
    source = _source(data, format_)
    [found] = _measure(output, task, [version], source, split, backbone, thumbnails=page is not None)
    place = {"task": task, "version": found.version, "data": str(source.path), "split": split}
    _show(output, place, found, good, page, limit, as_json)


@click.command()
@task_argument
@click.argument("first", metavar="V1", type=click.IntRange(min=1))
@click.argument("second", metavar="V2", type=click.IntRange(min=1))
@click.argument("data", metavar="[DATA]", required=False)
@_format_option
@_split_option
@_backbone_option
@_limit_option
@json_option
@click.pass_obj
def compare(
    output: Output,
    task: str,
    first: int,
    second: int,
    data: str | None,
    format_: str | None,
    split: "SplitName | None",
    backbone: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Compare versions V1 and V2 of TASK on the same images: what V2 fixes and breaks, and whether it counts.

    Without DATA on the held-out images that both were measured on when they were tuned; with DATA, as
    `ship eval` takes it, on its images.

    \b
    Examples:
      ship compare bottle-caps 3 4
      ship compare bottle-caps 3 4 data/shift-2
      ship compare bottle-caps 3 4 --json | jq -r '.broken[].path'
    """
    from orchestrator.registry.comparison import compare_versions

    if data is None and (format_, split, backbone) != (None, None, None):
        raise click.UsageError("--format, --split and --backbone are about DATA: name it")
    source = None if data is None else _source(data, format_)
    if source is None:
        found = _read_held_out(output, task, first, second)
    else:
        found = _measure(output, task, [first, second], source, split, backbone)
    result = compare_versions(task, found[0], found[1], is_same_source=source is not None)
    result = {**result, "data": None if source is None else str(source.path), "split": split}
    if as_json:
        lists = ("fixed", "broken", "both_wrong")
        output.print_json({**result, **{name: result[name][:limit] for name in lists}})
    else:
        print_comparison(output.out, result, _LIMIT if limit is None else limit)


def _read_held_out(output: Output, task: str, first: int, second: int) -> "list[Evidence]":
    """The answers of two versions on the held-out images that each was measured on when it was tuned."""
    from orchestrator.registry.evidence import choose_version, read_held_out

    registry, store = output.registry(), output.prompt_store()
    instead = f"ship compare {task} {first} {second} DATA"
    return [
        read_held_out(store, task, choose_version(registry, task, number), instead=instead)
        for number in (first, second)
    ]


def _measure(
    output: Output,
    task: str,
    numbers: Sequence[int | None],
    source: "DataSource",
    split: "SplitName | None",
    backbone: str | None,
    *,
    thumbnails: bool = False,
) -> "list[Evidence]":
    """The answers of versions on the images of a source."""
    from orchestrator.registry.evidence import choose_version, measure_version

    registry, store = output.registry(), output.prompt_store()
    found = []
    for number in numbers:
        info = choose_version(registry, task, number)
        with _progress(output, f"v{info.version}") as show:
            measured = measure_version(
                store,
                task,
                info,
                source,
                split=split,
                backbone=backbone,
                thumbnails=thumbnails,
                max_pixels=output.settings().max_pixels,
                on_progress=show,
            )
        found.append(measured)
    _warn_of_own_data(output, source, split, *found)
    return found


def _show(
    output: Output,
    place: Mapping[str, Any],
    found: "Evidence",
    good: str | None,
    page: Path | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print and write the report on a version's answers."""
    from orchestrator.cli.picture_page import render_page
    from ship.artifact.report import report_answers

    report = report_answers(found.answers, found.rule, good)
    report = {**place, "digest": found.digest, "num_mistakes": len(report["mistakes"]), **report}
    if page is not None:
        content = render_page({**report, "mistakes": report["mistakes"][:limit]}, found.answers.thumbnails)
        try:
            page.write_text(content, encoding="utf-8")
        except OSError as error:
            raise click.BadParameter(f"{page}: {error.strerror or error}", param_hint="--html") from error
    if as_json:
        output.print_json({**report, "mistakes": report["mistakes"][:limit]})
        return
    print_report(output.out, report, _LIMIT if limit is None else limit)
    if page is not None:
        output.print_line(printable(str(page)))


def _source(data: str, format_: str | None) -> "DataSource":
    return read_source(data, "DATA", **({} if format_ is None else {"format": format_}))


@contextmanager
def _progress(output: Output, what: str) -> Iterator[Callable[[int, int], None]]:
    with Progress(console=output.err, transient=True, disable=not output.err.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _warn_of_own_data(
    output: Output, source: "DataSource", split: "SplitName | None", *found: "Evidence"
) -> None:
    """Say so if the images are those that a version was tuned on."""
    from ship.data import fingerprint_data
    from ship.errors import DataError

    if split == "test":
        return
    try:
        fingerprint = fingerprint_data(source)
    except DataError:
        # Data that could not be tuned on, such as a folder of one class.
        return
    for one in found:
        if one.card.data_fingerprint == fingerprint:
            output.err.print(
                f"Version {one.version} was tuned on some of these images, and is better on them than on "
                "new ones: --split test takes those that were held out.",
                style="yellow",
                soft_wrap=True,
            )


COMMANDS = (mistakes, evaluate, compare)
