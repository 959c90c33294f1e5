"""The console command ``ship``: parses, calls, prints. Decides nothing.

Exit status: 0 done; 1 some tasks failed, or the registry refused; 2 bad input, nothing was written; 130
interrupted.

Heavy packages are imported by the command that needs them, so that ``ship --help`` answers at once.
"""

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from orchestrator.cli import ask as cli_predict
from orchestrator.cli import explain as cli_explain
from orchestrator.cli import gc as cli_gc
from orchestrator.cli import rollout as cli_rollout
from orchestrator.cli import runs as cli_runs
from orchestrator.cli import serve as cli_serve
from orchestrator.cli import tables
from orchestrator.cli import token as cli_token
from orchestrator.cli.options import request_options, selection_options
from orchestrator.cli.output import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, Output
from orchestrator.errors import ManifestError, OrchestratorError
from ship.errors import ShipError
from ship.findings import find_warnings

if TYPE_CHECKING:
    from orchestrator.manifest.request import Request, Selection
    from orchestrator.planning.check import TaskCheck
    from orchestrator.train.job import Job

__all__ = ["main"]

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_CONTEXT)
@click.option("--home", metavar="DIR", help="Folder for everything local [SHIP_HOME; default .ship].")
@click.option("--store", metavar="URL", help="Store of prompts, a path or s3://... [SHIP_STORE].")
@click.version_option(package_name="ship-prompts")
@click.pass_context
def cli(context: click.Context, home: str | None, store: str | None) -> None:
    """One frozen vision transformer, thousands of tasks.

    Tunes a small prompt per task on one frozen backbone, keeps the prompts in a store and a registry, and
    serves all of them from one endpoint.

    Environment: RAY_ADDRESS joins a cluster instead of starting a local Ray; MLFLOW_TRACKING_URI names a
    tracking server instead of sqlite in the home folder; AWS_* and AWS_ENDPOINT_URL as boto3 reads them.

    \b
    Examples:
      ship plan lines.yaml
      ship tune lines.yaml --workers 4
      ship ls
      ship serve --port 8000
    """
    context.obj = Output(home, store)


@cli.command()
@click.argument("manifest", type=click.Path())
@request_options
@click.option("--price", type=click.FloatRange(min=0), metavar="PER_HOUR", help="Of one device; shows cost.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def plan(output: Output, manifest: str, request: "Request", price: float | None, as_json: bool) -> None:
    """Check MANIFEST and show what `ship tune` would do. Writes nothing.

    Each task is to be tuned, reused from the store, or refused with the reason. Hours of one device are
    learned from past tunings in the store on the same backbone, and unknown before the first. The exit status
    is 1 if tasks are refused, and 2 if --max-tasks is given and more would be tuned.

    \b
    Examples:
      ship plan lines.yaml --price 2.50
      ship plan lines.yaml --tag site=ulm --only 'weld-*' --max-tasks 50
      ship plan lines.yaml --keep-going
      ship plan lines.yaml --json | jq '.tasks[] | select(.action == "tune") | .name'
    """
    from orchestrator.cli.plan_report import plan_json, print_plan

    job = _prepare(output, manifest, request)
    if as_json:
        output.print_json(plan_json(job.plan, price))
    else:
        print_plan(output.out, job.plan, price)
    if request.max_tasks is not None:
        job.check_fan_out()
    if job.plan.refused:
        sys.exit(EXIT_FAILED)


@cli.command()
@click.argument("manifest", type=click.Path())
@selection_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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


@cli.command()
@click.argument("manifest", type=click.Path())
@request_options
@click.option("--check", "check_first", is_flag=True, help="First `ship check`; tune nothing if it fails.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end; progress goes to stderr.")
@click.pass_obj
def tune(output: Output, manifest: str, request: "Request", check_first: bool, as_json: bool) -> None:
    """Tune every task of MANIFEST that is not in the store yet.

    Ctrl-C stops in good order; the same command goes on from there. A task that fails, or that the plan
    refuses, is reported and stops no other; the exit status is then 1. Problems of the manifest or of the
    data stop all before anything starts, unless --keep-going refuses their tasks alone.

    \b
    Examples:
      ship tune lines.yaml --check
      ship tune lines.yaml --only bottle-caps --only 'weld-*'
      ship tune lines.yaml --tag site=ulm --tag line=3 --max-tasks 50
      ship tune lines.yaml --keep-going
      ship --store s3://models/ship tune lines.yaml --workers 8
      RAY_ADDRESS=ray-head:6379 ship tune lines.yaml
    """
    from orchestrator.cli.plan_report import print_refused
    from orchestrator.cli.progress import ProgressView

    if check_first:
        found = _check(output, manifest, request)
        failed = {check.task: check.failures for check in found if check.has_failed}
        if failed:
            tables.print_checks(output.err, found)
        if failed and not request.keep_going:
            sys.exit(EXIT_FAILED)
        request = replace(request, refused=failed)
    job = _prepare(output, manifest, request, will_run=True)
    job.check_fan_out()
    print_refused(output.err, job.plan.refused)
    view = ProgressView(output.err if as_json else output.out)
    try:
        # What libraries print, such as Ray of a dead worker, must not end in the JSON.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            report = job.run(on_progress=view.update)
    finally:
        view.close()
    if as_json:
        output.print_json(tables.report_json(report))
    else:
        tables.print_report(output.out, report, num_tasks=len(job.plan.tasks))
    if report.backlog.num_records:
        output.err.print(str(report.backlog), style="yellow")
    if report.summary.is_interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if report.summary.failed or report.summary.cancelled or report.refused:
        sys.exit(EXIT_FAILED)


@cli.command()
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


@cli.command(name="ls")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_tasks(output: Output, as_json: bool) -> None:
    """List all tasks of the registry: what serves, how well, since when.

    \b
    Examples:
      ship ls
      ship ls --json | jq -r '.[] | select(.champion == null) | .task'
    """
    infos = output.registry().tasks()
    if as_json:
        output.print_json([tables.task_json(info) for info in infos])
    elif infos:
        output.out.print(tables.tasks_table(infos))
    else:
        output.out.print("No task is registered yet: `ship tune MANIFEST` registers what it tunes.")


@cli.command()
@click.argument("task")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(output: Output, task: str, as_json: bool) -> None:
    """Show the versions of TASK, newest first, and why each was promoted or not.

    \b
    Examples:
      ship show bottle-caps
      ship show bottle-caps --json | jq '.versions[0].metrics.accuracy'
    """
    versions = output.registry().versions(task)
    if as_json:
        output.print_json({"task": task, "versions": [tables.version_json(info) for info in versions]})
    else:
        output.out.print(tables.versions_table(versions))
        for info in versions:
            output.out.print(f"v{info.version}: {info.gate_reason}", markup=False, soft_wrap=True)
            for warning in find_warnings(info.metrics):
                output.out.print(f"v{info.version}: {warning}", style="yellow", markup=False, soft_wrap=True)


@cli.command()
@click.argument("task")
@click.argument("version", type=click.IntRange(min=1), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def promote(output: Output, task: str, version: int | None, as_json: bool) -> None:
    """Serve VERSION of TASK from now on; without VERSION its challenger.

    \b
    Examples:
      ship promote bottle-caps
      ship promote bottle-caps 3
    """
    _print_promotion(output, output.registry().promote(task, version), as_json)


@cli.command()
@click.argument("task")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def rollback(output: Output, task: str, as_json: bool) -> None:
    """Serve the champion before today's again. A second rollback undoes the first.

    \b
    Example:
      ship rollback bottle-caps
    """
    _print_promotion(output, output.registry().rollback(task), as_json)


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure speed beside what people would use instead; needs a source checkout.

    
    Examples:
      ship bench runtime --backbone bundled --batch 8
      ship bench tuning --json tuning.json
      ship bench --help
    """
    from orchestrator.cli.bench import run_benchmark

    run_benchmark(arguments)


for command in (
    *cli_runs.COMMANDS,
    *cli_rollout.COMMANDS,
    cli_gc.gc,
    cli_predict.predict,
    cli_explain.explain,
    cli_serve.serve,
    cli_token.token,
):
    cli.add_command(command)


def main() -> None:
    """Entry point: errors that a user can fix are printed, not traced."""
    console = Console(stderr=True, highlight=False)
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        console.print("interrupted", style="yellow")
        sys.exit(EXIT_INTERRUPTED)
    except ShipError as error:
        console.print("error:", style="bold red", end=" ")
        console.print(str(error), markup=False, soft_wrap=True)
        is_late = isinstance(error, OrchestratorError) and not isinstance(error, ManifestError)
        sys.exit(EXIT_FAILED if is_late else EXIT_BAD_INPUT)


def _check(output: Output, manifest: str, request: "Request") -> "list[TaskCheck]":
    from orchestrator.planning.check import check_tasks

    with output.err.status("checking the manifest") as status:
        return check_tasks(
            request.load(manifest),
            lambda task, done, total: status.update(f"{task}: {done} of {total} images"),
        )


def _prepare(output: Output, manifest: str, request: "Request", *, will_run: bool = False) -> "Job":
    from orchestrator.train.job import prepare_job

    with output.err.status("checking the manifest and its data") as status:

        def show_progress(done: int, total: int) -> None:
            status.update(f"checking data: {done} of {total} tasks")

        return prepare_job(manifest, output.settings, show_progress, request, will_run=will_run)


def _print_promotion(output: Output, promotion: Any, as_json: bool) -> None:
    if as_json:
        output.print_json(tables.promotion_json(promotion))
    else:
        before = f"version {promotion.from_version}" if promotion.from_version else "nothing"
        output.out.print(f"{promotion.task}: version {promotion.to_version} serves now, {before} did before.")
