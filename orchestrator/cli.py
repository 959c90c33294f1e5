"""The console command ``ship``: parses, calls, prints. Decides nothing.

Exit status: 0 done; 1 some tasks failed, or the registry refused; 2 bad input, nothing was written; 130
interrupted.

Heavy packages are imported by the command that needs them, so that ``ship --help`` answers at once.
"""

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from orchestrator import tables
from orchestrator.durations import parse_duration
from orchestrator.errors import ManifestError, OrchestratorError
from orchestrator.settings import Settings
from ship.errors import ShipError
from ship.findings import find_warnings

if TYPE_CHECKING:
    from orchestrator.check import TaskCheck
    from orchestrator.store.registry import Registry
    from orchestrator.train.job import Job

__all__ = ["main"]

PIPE_COLUMNS = 200
# A publication under way may take this long from its first object to its last.
MIN_GC_AGE_S = 3600
EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Output:
    """Where a command prints, and with which settings it works."""

    def __init__(self, home: str | None, store: str | None) -> None:
        self.home, self.store = home, store
        # Rich cuts tables to 80 columns where there is no terminal: in a file or a pipe nothing is too wide.
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
        self.out, self.err = Console(highlight=False, width=width), Console(stderr=True, highlight=False)

    def settings(self, manifest_store: str | None = None) -> Settings:
        """Flags win over the manifest, and the manifest over the environment."""
        return Settings.from_env(os.environ, home=self.home, store=self.store or manifest_store)

    def registry(self) -> "Registry":
        """The registry that the settings name."""
        from orchestrator.store.registry import Registry

        settings = self.settings()
        return Registry(settings.tracking_uri, settings.artifact_location)

    def print_json(self, value: object) -> None:
        """One JSON document on standard output."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def plan(output: Output, manifest: str, as_json: bool) -> None:
    """Check MANIFEST and show what `ship tune` would do. Writes nothing.

    \b
    Examples:
      ship plan lines.yaml
      ship plan lines.yaml --json | jq '.tasks[] | select(.action == "tune") | .name'
    """
    job = _prepare(output, manifest)
    if as_json:
        click.echo(job.plan.to_json())
    else:
        output.out.print(tables.plan_table(job.plan))


@cli.command()
@click.argument("manifest", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check(output: Output, manifest: str, as_json: bool) -> None:
    """Look at every image of MANIFEST's tasks before anything is spent on them. Writes nothing.

    Finds images that cannot be read, are dark, flat, blurred or of odd proportions; copies across splits and
    classes; classes that are too small, out of balance, or spelt in two ways. What exceeds a limit under
    `checks:` in the manifest fails, and the exit status is 1; the rest is a warning.

    \b
    Examples:
      ship check lines.yaml
      ship check lines.yaml --json | jq -r '.[] | select(.failed) | .task'
    """
    found = _check(output, manifest)
    if as_json:
        output.print_json([result.to_dict() for result in found])
    else:
        tables.print_checks(output.out, found)
    if any(result.has_failed for result in found):
        sys.exit(EXIT_FAILED)


@cli.command()
@click.argument("manifest", type=click.Path())
@click.option("--workers", type=click.IntRange(min=1), help="Workers at most [one a GPU, else one a CPU].")
@click.option("--check", "check_first", is_flag=True, help="First `ship check`; tune nothing if it fails.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end; progress goes to stderr.")
@click.pass_obj
def tune(output: Output, manifest: str, workers: int | None, check_first: bool, as_json: bool) -> None:
    """Tune every task of MANIFEST that is not in the store yet.

    Ctrl-C stops in good order; the same command goes on from there. A task that fails is reported and stops
    no other; the exit status is then 1.

    \b
    Examples:
      ship tune lines.yaml --check
      ship --store s3://models/ship tune lines.yaml --workers 8
      RAY_ADDRESS=ray-head:6379 ship tune lines.yaml
    """
    from orchestrator.train.progress import ProgressView

    if check_first:
        found = _check(output, manifest)
        if any(result.has_failed for result in found):
            tables.print_checks(output.err, found)
            sys.exit(EXIT_FAILED)
    job = _prepare(output, manifest)
    view = ProgressView(output.err if as_json else output.out)
    try:
        report = job.run(num_workers=workers, on_progress=view.update)
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
    if report.summary.failed:
        sys.exit(EXIT_FAILED)


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


@cli.command()
@click.option("--dry-run", is_flag=True, help="List what would go, and remove nothing.")
@click.option(
    "--older-than",
    "age",
    default="1d",
    show_default=True,
    metavar="AGE",
    help="Younger things stay: 90m, 12h, 1d, 2w; at least 1h.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def gc(output: Output, dry_run: bool, age: str, as_json: bool) -> None:
    """Remove from the store what nobody needs any more.

    That is artifacts that no publication, no version in the registry and no catalog entry names, snapshots of
    tunings, and what writers that were killed left behind; all of it only if it is older than AGE. Refuses if
    the registry cannot be asked.

    \b
    Examples:
      ship gc --dry-run
      ship --store s3://models/ship gc --older-than 2w --json | jq .num_bytes
    """
    from orchestrator.gc_report import garbage_json, print_garbage
    from orchestrator.store.collector import Collector
    from orchestrator.store.objects import open_objects

    age_s, now_s = _gc_age(age), time.time()
    collector = Collector(open_objects(output.settings().store), output.registry())
    with output.err.status("looking through the store"):
        found = collector.find(age_s)
        gone = [] if dry_run else collector.remove(found)
    if as_json:
        output.print_json(garbage_json(found, gone, dry_run=dry_run, now_s=now_s))
    else:
        print_garbage(output.out, found, gone, dry_run=dry_run, now_s=now_s)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="TCP port.")
@click.option("--backbone", default="bundled", show_default=True, help="As in a manifest.")
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(min=1), help="Of the engine.")
@click.pass_obj
def serve(output: Output, host: str, port: int, backbone: str, replicas: int) -> None:
    """Answer for every task that has a champion, from one backbone. Ctrl-C drains and ends.

    Which task a request means is said by its header Ship-Task.

    \b
    Examples:
      ship serve
      curl -H 'Ship-Task: bottle-caps' --data-binary @cap.png http://127.0.0.1:8000/v1/predict
    """
    from orchestrator.serve.run import serve_forever

    serve_forever(
        output.settings(),
        backbone_spec=backbone,
        host=host,
        port=port,
        num_replicas=replicas,
        on_ready=lambda url: output.out.print(f"Serving at {url} (Ctrl-C ends it)"),
    )


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
    from orchestrator.bench import run_benchmark

    run_benchmark(arguments)


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


def _gc_age(text: str) -> int:
    try:
        age_s = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from None
    if age_s < MIN_GC_AGE_S:
        raise click.BadParameter(
            f"{text!r}: expected at least 1h: something younger may be about to be published",
            param_hint="--older-than",
        )
    return age_s


def _check(output: Output, manifest: str) -> "list[TaskCheck]":
    from orchestrator.check import check_tasks
    from orchestrator.manifest import load_manifest

    with output.err.status("checking the manifest") as status:
        return check_tasks(
            load_manifest(manifest),
            lambda task, done, total: status.update(f"{task}: {done} of {total} images"),
        )


def _prepare(output: Output, manifest: str) -> "Job":
    from orchestrator.train.job import prepare_job

    with output.err.status("checking the manifest and its data") as status:

        def show_progress(done: int, total: int) -> None:
            status.update(f"checking data: {done} of {total} tasks")

        return prepare_job(manifest, output.settings, show_progress)


def _print_promotion(output: Output, promotion: Any, as_json: bool) -> None:
    if as_json:
        output.print_json(tables.promotion_json(promotion))
    else:
        before = f"version {promotion.from_version}" if promotion.from_version else "nothing"
        output.out.print(f"{promotion.task}: version {promotion.to_version} serves now, {before} did before.")
