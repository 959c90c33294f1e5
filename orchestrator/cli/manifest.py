"""Commands on a manifest: plan, check, tune, schema."""

import contextlib
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from orchestrator.cli import tables
from orchestrator.cli.options import json_option, request_options, selection_options
from orchestrator.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WAITING, Output
from orchestrator.tracing import traced_process

if TYPE_CHECKING:
    from orchestrator.manifest.request import Request
    from orchestrator.manifest.selection import Selection
    from orchestrator.planning.check import TaskCheck
    from orchestrator.train.job import Job

__all__ = ["COMMANDS", "run_job"]

_STOPPING = (
    b"\nStopping: workers drop their tasks at the next epoch, within 15 s. Published tasks stay; the same "
    b"command resumes the others. Ctrl-C again ends without waiting.\n"
)


@click.command()
@click.argument("manifest", type=click.Path())
@request_options
@click.option(
    "--price", type=click.FloatRange(min=0), metavar="PER_HOUR", help="Price of one device; shows the cost."
)
@json_option
@click.pass_obj
def plan(output: Output, manifest: str, request: "Request", price: float | None, as_json: bool) -> None:
    """Check MANIFEST and show what `ship tune` would do. Writes nothing.

    Each task is to be tuned, reused from the store, or refused with the reason. What is in the store need not
    serve: where another version does, both are named. Time is that of one worker
    for each task, and that of the wall clock for all; it is learned from past tunings in the store on the
    same backbone, and unknown before the first. The exit status
    is 1 if tasks are refused, and 2 if --max-tasks is given and more would be tuned.

    \b
    Examples:
      ship plan lines.yaml --price 2.50
      ship plan lines.yaml --tag site=ulm --only 'weld-*' --max-tasks 50
      ship plan lines.yaml --keep-going
      ship plan lines.yaml --json | jq '.tasks[] | select(.action == "tune") | .name'
      ship plan lines.yaml --json | jq '.tasks[] | select(.version != .champion) | .name'
    """
    from orchestrator.cli.plan_report import plan_json, print_plan

    job = _prepare(output, manifest, request)
    if as_json:
        output.print_json(plan_json(job.plan, price, job.num_workers))
    else:
        print_plan(output.out, job.plan, price, job.num_workers)
    if request.max_tasks is not None:
        job.check_fan_out()
    if job.plan.refused:
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("manifest", type=click.Path())
@selection_options
@json_option
@click.pass_obj
def check(output: Output, manifest: str, selection: "Selection", as_json: bool) -> None:
    """Look at every image of MANIFEST's tasks before anything is spent on them. Writes nothing.

    Finds images that cannot be read, are dark, flat, blurred or of odd proportions; copies across splits and
    classes; classes that are too small, out of balance, or spelt in two ways. What exceeds a limit under
    `checks:` in the manifest fails, and the exit status is 1; the rest is a warning.

    \b
    Examples:
      ship check lines.yaml
      ship check lines.yaml --tag site=ulm --only 'weld-*'
      ship check lines.yaml --json | jq -r '.[] | select(.failed) | .task'
    """
    from orchestrator.manifest.request import Request

    found = _check(output, manifest, Request(selection=selection))
    if as_json:
        output.print_json([result.to_dict() for result in found])
    else:
        tables.print_checks(output.out, found)
    if any(result.has_failed for result in found):
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("manifest", type=click.Path())
@request_options
@click.option(
    "--no-thumbnails",
    is_flag=True,
    help="Keep no pictures of mistakes in what is published; tasks that are published keep theirs.",
)
@click.option(
    "--promote",
    "promotes",
    is_flag=True,
    help="Let the gate decide again on what is in the store while another version of its task serves.",
)
@click.option(
    "--withheld-ok",
    is_flag=True,
    help="Exit status 0, not 3, if all were tuned and some do not serve: a scheduler repeats what fails.",
)
@click.option("--check", "check_first", is_flag=True, help="First `ship check`; tune nothing if it fails.")
@click.option(
    "--keep",
    "num_kept",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Runs whose status and events stay in the home, this one among them; see `ship runs`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end; progress goes to stderr.")
@click.pass_obj
def tune(
    output: Output,
    manifest: str,
    request: "Request",
    no_thumbnails: bool,
    promotes: bool,
    withheld_ok: bool,
    check_first: bool,
    num_kept: int,
    as_json: bool,
) -> None:
    """Tune every task of MANIFEST that is not in the store yet.

    What is in the store need not serve: after a change of settings was taken back, the version of the other
    settings does. The report says so, and --promote lets the gate decide again on the version of these.

    Ctrl-C stops cleanly; run the same command to resume. A task that fails, or that the plan
    refuses, is reported and stops no other; the exit status is then 1. It is 3 if all were tuned, but some
    have no version that serves, because the gate refused theirs: the verdict on each task says what it needs.
    Problems of the manifest or of the data stop all before anything starts, unless --keep-going refuses their
    tasks alone. A report for a browser is left in the run's folder, and its path is printed.

    \b
    Examples:
      ship tune lines.yaml --check
      ship tune lines.yaml --only bottle-caps --only 'weld-*'
      ship tune lines.yaml --tag site=ulm --tag line=3 --max-tasks 50
      ship tune lines.yaml --keep-going
      ship tune lines.yaml --promote
      ship --store s3://models/ship tune lines.yaml --workers 8
      RAY_ADDRESS=ray-head:6379 ship tune lines.yaml
    """
    from orchestrator.cli.plan_report import print_refused
    from orchestrator.train.run.folder import check_free

    # Planning reads all data: what the run would be refused for in the end is said before.
    check_free(output.settings().home)
    request = replace(request, thumbnails=not no_thumbnails)
    if check_first:
        request = _refuse_unsound(output, manifest, request, as_json)
    with traced_process(os.environ, "driver", "ship tune"):
        job = _prepare(output, manifest, request, will_run=True)
        job.check_fan_out()
        print_refused(output.err, job.plan.refused)
        job = replace(job, num_kept=num_kept, promotes=promotes)
        run_job(output, job, as_json=as_json, withheld_ok=withheld_ok)


@click.command()
@click.pass_obj
def schema(output: Output) -> None:
    """Print the JSON Schema of a manifest, by which an editor completes and checks while one types.

    A manifest names it in its first line: `# yaml-language-server: $schema=manifest.schema.json`.

    \b
    Example:
      ship schema > manifest.schema.json
    """
    from orchestrator.manifest.json_schema import manifest_json_schema

    output.print_json(manifest_json_schema())


def run_job(output: Output, job: "Job", *, as_json: bool, withheld_ok: bool = False) -> None:
    """Run a job, print its report, and exit with its status; 0 for ``withheld_ok`` if some do not serve."""
    from orchestrator.cli.progress import ProgressView

    view = ProgressView(output.err if as_json else output.out)
    try:
        # What libraries print, such as Ray of a dead worker, must not end in the JSON.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            report = job.run(on_progress=view.update, on_stop=_say_stopping)
    finally:
        view.close()
    if as_json:
        output.print_json(report.to_dict())
    else:
        tables.print_report(output.out, report, num_tasks=len(job.plan.tasks))
    if report.backlog.num_records:
        output.err.print(str(report.backlog), style="yellow")
    if report.summary.is_interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if report.summary.failed or report.summary.cancelled or report.refused:
        sys.exit(EXIT_FAILED)
    if not withheld_ok and any(verdict.serves is False for verdict in report.verdicts):
        sys.exit(EXIT_WAITING)


def _say_stopping() -> None:
    """Say on standard error what Ctrl-C does; a signal handler may write to no buffered stream."""
    with contextlib.suppress(OSError):
        os.write(2, _STOPPING)


def _check(output: Output, manifest: str, request: "Request") -> "list[TaskCheck]":
    from orchestrator.planning.check import check_tasks

    with output.err.status("checking the manifest") as status:
        return check_tasks(
            request.load(manifest),
            lambda task, done, total: status.update(f"{task}: {done} of {total} images"),
            output.settings().max_pixels,
        )


def _refuse_unsound(output: Output, manifest: str, request: "Request", as_json: bool) -> "Request":
    """The request without the tasks whose data fail the check; ends the command if it must not go on."""
    found = _check(output, manifest, request)
    failed = {check.task: check.failures for check in found if check.has_failed}
    if failed:
        tables.print_checks(output.err, found)
    elif warned := [check for check in found if check.findings]:
        tables.print_checks(output.err, warned)
    if failed and not request.keep_going:
        if as_json:
            output.print_error("CheckFailed", f"the check failed for {', '.join(failed)}", EXIT_FAILED)
        sys.exit(EXIT_FAILED)
    return replace(request, refused=failed)


def _prepare(output: Output, manifest: str, request: "Request", *, will_run: bool = False) -> "Job":
    from orchestrator.train.job import prepare_job

    with output.err.status("checking the manifest and its data") as status:

        def show_progress(done: int, total: int) -> None:
            status.update(f"checking data: {done} of {total} tasks")

        return prepare_job(manifest, output.settings, show_progress, request, will_run=will_run)


COMMANDS = (plan, check, tune, schema)
