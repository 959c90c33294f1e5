"""Commands that watch and steer a run from another terminal: parse, call, print."""

import sys
import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli.completion import complete_run, complete_task_of_run
from orchestrator.cli.options import json_option
from orchestrator.cli.output import EXIT_FAILED, Output

if TYPE_CHECKING:
    from orchestrator.train.run.view import RunView

__all__ = ["COMMANDS"]

WATCH_EVERY_S = 1.0
_run_option = click.option(
    "--run",
    metavar="NAME",
    shell_complete=complete_run,
    help="A run that `ship runs` lists [the one at work, else the last].",
)


@click.command(name="runs")
@json_option
@click.pass_obj
def list_runs(output: Output, as_json: bool) -> None:
    """List the runs of this home that are kept, newest first: `ship tune` keeps the last 20, or --keep.

    \b
    Examples:
      ship runs
      ship runs --json | jq -r '.[] | select(.counts.failed) | .run'
    """
    from orchestrator.cli.tables import runs_table
    from orchestrator.train.run.control import status_values
    from orchestrator.train.run.view import RunView
    from orchestrator.train.run.view import list_runs as find_runs

    home = output.settings().home
    found = [status_values(RunView(home, about.run)) for about in find_runs(home)]
    for run in found:
        del run["tasks"]
    if as_json:
        output.print_json(found)
    elif found:
        output.out.print(runs_table(found, output.out.width))
    else:
        output.out.print(f"No run in {home} yet: `ship tune MANIFEST` starts one.", markup=False)


@click.command()
@_run_option
@click.option("--watch", is_flag=True, help="Follow the run until it ends.")
@json_option
@click.pass_obj
def status(output: Output, run: str | None, watch: bool, as_json: bool) -> None:
    """Show the state of each task of the run in this home, or its last state if the run is over.

    \b
    Examples:
      ship status
      ship status --watch
      ship status --run tune-20261126-081500-3f9a1c
      ship status --json | jq -r '.tasks[] | select(.state == "failed") | .task'
    """
    from orchestrator.cli.progress import ProgressView
    from orchestrator.train.run.control import status_values

    view = _view(output, run)
    if as_json:
        output.print_json(status_values(view))
        return
    about = view.about()
    where = f"process {about.pid} on {about.host}"
    state = f"at work, {where}" if view.is_at_work else "over"
    output.out.print(f"{about.run}, {about.manifest}: {state}", markup=False, soft_wrap=True)
    shown = ProgressView(output.out, lists_all=True)
    try:
        while True:
            is_over = not view.is_at_work
            if (found := view.status()) is not None:
                shown.update(found[0], is_over=is_over)
            if is_over or not watch:
                break
            time.sleep(WATCH_EVERY_S)
    finally:
        shown.close()


@click.command()
@click.argument("task", required=False, shell_complete=complete_task_of_run)
@_run_option
@click.option("--follow", "-f", is_flag=True, help="Follow the run until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one event a line.")
@click.pass_obj
def logs(output: Output, task: str | None, run: str | None, follow: bool, as_json: bool) -> None:
    """Print the events of TASK, or of all tasks, of the run in this home; failures with their whole cause.

    \b
    Examples:
      ship logs bottle-caps
      ship logs --follow
      ship logs bottle-caps --run tune-20261126-081500-3f9a1c
    """
    from orchestrator.cli.tables import event_line
    from orchestrator.train.run.control import check_known

    view = _view(output, run)
    view.about()
    check_known(view, () if task is None else (task,))
    for event in view.events(task, follow=follow):
        click.echo(event.to_json() if as_json else event_line(event))


@click.command()
@click.argument("tasks", nargs=-1, shell_complete=complete_task_of_run)
@json_option
@click.pass_obj
def cancel(output: Output, tasks: tuple[str, ...], as_json: bool) -> None:
    """Leave TASKS of the run in this home; without TASKS end the run cleanly, as Ctrl-C does.

    What is published stays. `ship retry TASK`, or `ship tune` again, takes a task up where it was left.

    \b
    Examples:
      ship cancel bottle-caps
      ship cancel
    """
    from orchestrator.train.run.control import cancel_tasks, stop_run

    view = _view(output)
    changed = cancel_tasks(view, tasks) if tasks else ()
    if not tasks:
        stop_run(view)
    if as_json:
        output.print_json({"stopped": not tasks, "cancelled": list(changed)})
    elif tasks:
        output.out.print(f"cancelled: {', '.join(changed) or 'none, all of them have ended'}", markup=False)
    else:
        output.out.print("The run ends; run `ship tune` with its manifest to resume.")


@click.command()
@click.argument("tasks", nargs=-1, shell_complete=complete_task_of_run)
@click.option("--failed", is_flag=True, help="Retry all tasks that failed or were cancelled.")
@json_option
@click.pass_obj
def retry(output: Output, tasks: tuple[str, ...], failed: bool, as_json: bool) -> None:
    """Take up failed or cancelled TASKS again while the run in this home is still at work.

    Once it is over, `ship tune` with the same manifest takes up all tasks that are not published.

    \b
    Examples:
      ship retry bottle-caps
      ship retry --failed
    """
    from orchestrator.train.run.control import retry_tasks

    if failed == bool(tasks):
        raise click.UsageError("name TASKS, or say --failed")
    found = retry_tasks(_view(output), tasks)
    if as_json:
        output.print_json({"taken_up": list(found.taken_up), "refused": dict(found.refused)})
    else:
        output.out.print(f"taken up again: {', '.join(found.taken_up) or 'none'}", markup=False)
        for task, reason in found.refused.items():
            output.err.print(f"{task}: {reason}", style="yellow", markup=False, soft_wrap=True)
    if found.refused or not found.taken_up:
        sys.exit(EXIT_FAILED)


COMMANDS = (list_runs, status, logs, cancel, retry)


def _view(output: Output, run: str | None = None) -> "RunView":
    from orchestrator.train.run.view import RunView

    return RunView(output.settings().home, run)
