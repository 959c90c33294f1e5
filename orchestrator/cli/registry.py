"""Commands on the registry: ls, show, promote, rollback, retire, canary, shadow, sync."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import tables
from orchestrator.cli.audit_tables import pending_line
from orchestrator.cli.completion import task_argument
from orchestrator.cli.drift import drift_line, find_drift
from orchestrator.cli.options import (
    author_options,
    force_option,
    json_option,
    read_share,
    selection_options,
)
from orchestrator.cli.output import Output
from orchestrator.cli.served import find_served, print_promotion, rollout_problem
from orchestrator.registry.fleet import ORDERS, in_order, task_json
from orchestrator.registry.plain_values import pending_json, version_json
from ship.findings import find_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.manifest.selection import Selection
    from orchestrator.registry.versions import TaskInfo, Trials, VersionInfo
    from orchestrator.store.documents.audit import Author
    from orchestrator.store.documents.rollout import Rollout

__all__ = ["COMMANDS"]

_VERSION = click.IntRange(min=1)


@click.command(name="ls")
@selection_options
@click.option(
    "--sort",
    "by",
    type=click.Choice(ORDERS),
    default="task",
    show_default=True,
    help="By name; the least accurate first; or the latest change first.",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--all", "with_retired", is_flag=True, help="Retired tasks, too.")
@json_option
@click.pass_obj
def list_tasks(
    output: Output, selection: "Selection", by: str, reverse: bool, with_retired: bool, as_json: bool
) -> None:
    """List the tasks of the registry: the version that serves, its accuracy, since when it serves.

    Where no version serves, the accuracy is that of the challenger, and marked so. Tags are those of the
    manifest, or made in MLflow's page; --tag given twice takes tasks that have both.

    \b
    Examples:
      ship ls
      ship ls --tag site=ulm --only 'weld-*' --sort accuracy
      ship ls --sort changed --all
      ship ls --json | jq -r '.[] | select(.champion == null) | .task'
    """
    from orchestrator.registry.session import RegistryMissing

    try:
        infos = output.registry().tasks()
    except RegistryMissing as error:
        # Before the first task; or the folder is another one, which the message says.
        output.err.print(str(error), markup=False, soft_wrap=True)
        if as_json:
            output.print_json([])
        return
    if infos:
        chosen = selection.choose({info.task: info.own_tags for info in infos}, "the registry")
        infos = in_order([info for info in infos if info.task in chosen], by, reverse=reverse)
    shown = [info for info in infos if with_retired or not info.is_retired]
    pending = _find_pending(output, shown)
    served, problems = find_served(output, shown)
    drifts = find_drift(output)
    if as_json:
        output.print_json(
            [
                {
                    **task_json(info),
                    "pending": pending_json(pending.get(info.task)),
                    "serves": served.get(info.task),
                    "problem": problems.get(info.task),
                    "drift": drifts[info.task].state if info.task in drifts else None,
                }
                for info in shown
            ]
        )
    else:
        _print_tasks(output, shown, num_retired=len(infos) - len(shown))
        for task, problem in problems.items():
            output.err.print(f"{task}: {problem}", markup=False, soft_wrap=True)
        for rollout in pending.values():
            output.print_line(pending_line(rollout))
        for info in shown:
            if info.task in drifts and drifts[info.task].is_alarming:
                output.print_line(drift_line(info.task, drifts[info.task]))


def _print_tasks(output: Output, infos: "list[TaskInfo]", num_retired: int) -> None:
    if infos:
        output.out.print(tables.tasks_table(infos, output.out.width))
    elif not num_retired:
        output.out.print("No task is registered yet: `ship tune MANIFEST` registers what it tunes.")
    if num_retired:
        output.out.print(f"{num_retired} retired: `ship ls --all` lists them.", markup=False)


@click.command()
@task_argument
@json_option
@click.pass_obj
def show(output: Output, task: str, as_json: bool) -> None:
    """Show the versions of TASK, newest first, why each was promoted or not, and what it takes of a device.

    \b
    Examples:
      ship show bottle-caps
      ship show bottle-caps --json | jq '.versions[0].metrics.accuracy'
    """
    registry = output.registry()
    versions, view = registry.versions(task), registry.view(task)
    found = [None if view is None else view.problem, rollout_problem(output, task)]
    problems = [problem for problem in found if problem is not None]
    rollout = None if found[1] is not None else output.rollouts().stored(task)
    change, rules = (None, {}) if rollout is None else (rollout.change, rollout.rules)
    if as_json:
        output.print_json(
            {
                "task": task,
                "change": asdict(change) if change else None,
                "pending": pending_json(rollout),
                "problems": problems,
                "versions": [
                    {**version_json(info), "rule": rules.get(info.digest or "")} for info in versions
                ],
            }
        )
        return
    output.out.print(tables.versions_table(versions, output.out.width))
    if change is not None:
        output.print_line(tables.change_line(change))
    if rollout is not None and rollout.pending is not None:
        output.print_line(pending_line(rollout))
    for problem in problems:
        output.print_line(f"{task}: {problem}", style="red")
    for info in versions:
        _print_version(output, task, info, rules.get(info.digest or ""))


def _print_version(output: Output, task: str, info: "VersionInfo", rule: str | None) -> None:
    """The lines about one version below the table of all."""
    name = f"v{info.version}"
    output.print_line(f"{name}: {info.gate_reason}")
    if advice := tables.advice_line(info):
        output.print_line(f"{name}: {advice}")
    if info.choice:
        output.print_line(f"{name}: {info.choice}")
    if rule:
        how = f"ship threshold {task} --version {info.version}"
        output.print_line(f"{name}: decides by rule {rule[:12]}; `{how}` shows it")
    if memory := tables.memory_line(info):
        output.print_line(f"{name}: {memory}")
    for warning in find_warnings(info.metrics):
        output.print_line(f"{name}: {warning}", style="yellow")


@click.command()
@task_argument
@click.argument("version", type=_VERSION, required=False)
@force_option
@author_options
@json_option
@click.pass_obj
def promote(
    output: Output, task: str, version: int | None, force: bool, author: "Author", as_json: bool
) -> None:
    """Serve VERSION of TASK from now on; without VERSION its challenger.

    A retired task comes back; without VERSION that which served before it was retired. A version that the
    gate refused, or that is of another backbone than the champions, takes --force and a reason. Where the
    task needs an approval, the promotion waits for `ship approve`; the exit status is 3.

    \b
    Examples:
      ship promote bottle-caps
      ship promote bottle-caps 3 --reason 'new camera'
      ship promote bottle-caps 4 --force --reason 'the gate judged pictures of the old camera'
    """
    print_promotion(output, output.rollouts(author).promote(task, version, force=force), as_json)


@click.command()
@task_argument
@author_options
@json_option
@click.pass_obj
def rollback(output: Output, task: str, author: "Author", as_json: bool) -> None:
    """Serve the champion before today's again. A second rollback undoes the first.

    It needs no approval and no MLflow: while that is down, its aliases follow later.

    \b
    Example:
      ship rollback bottle-caps
    """
    print_promotion(output, output.rollouts(author).rollback(task), as_json)


@click.command()
@task_argument
@author_options
@json_option
@click.pass_obj
def retire(output: Output, task: str, author: "Author", as_json: bool) -> None:
    """Take TASK out of service: no version of it serves or is tried from now on.

    The endpoint answers 410 for it, and `ship ls` leaves it out. Its versions stay, a new one that is tuned
    waits, and `ship promote TASK` brings it back. Like a rollback it needs no MLflow.

    \b
    Example:
      ship retire bottle-caps --reason 'line 3 is closed'
    """
    version = output.rollouts(author).retire(task)
    if as_json:
        output.print_json({"task": task, "retired": version})
    else:
        output.print_line(
            f"{task}: retired, version {version} serves no more; `ship promote {task}` undoes it."
        )


@click.command()
@task_argument
@click.argument("version", type=_VERSION, required=False)
@click.argument("share", metavar="SHARE%", required=False)
@click.option("--stop", is_flag=True, help="Let the champion answer all requests again.")
@force_option
@author_options
@json_option
@click.pass_obj
def canary(
    output: Output,
    task: str,
    version: int | None,
    share: str | None,
    stop: bool,
    force: bool,
    author: "Author",
    as_json: bool,
) -> None:
    """Let VERSION of TASK answer SHARE% of its requests; the champion answers the others.

    Requests with one key in their header Ship-Key get the same of the two for as long as it runs, and keep it
    when the share rises. A share of 0% ends it, as --stop does; `ship promote TASK VERSION` gives it all
    requests, and ends it too. Its answers count: a version that the gate refused takes --force and a reason.

    \b
    Examples:
      ship canary bottle-caps 4 5%
      ship canary bottle-caps 4 25% --json
      ship canary bottle-caps --stop
    """
    if stop and (version, share) != (None, None):
        raise click.UsageError("--stop ends whichever canary there is: leave out VERSION and SHARE%")
    if not stop and (version is None or share is None):
        raise click.UsageError(f"name a version and a share, as in `ship canary {task} 4 5%`, or --stop")
    part = read_share(share, f"ship promote {task} {version}") if share is not None else 0.0
    rollouts = output.rollouts(author)
    if version is None or part == 0.0:
        _print_stopped(output, task, "canary", rollouts.stop_canary(task, version), as_json)
        return
    started = rollouts.start_canary(task, version, part, force=force)
    if as_json:
        output.print_json(_trials_json(task, started))
    else:
        output.print_line(f"{task}: version {version} answers {100 * part:.4g}% of the requests now.")


@click.command()
@task_argument
@click.argument("version", type=_VERSION, required=False)
@click.option("--stop", is_flag=True, help="Ask the champion alone again.")
@author_options
@json_option
@click.pass_obj
def shadow(
    output: Output, task: str, version: int | None, stop: bool, author: "Author", as_json: bool
) -> None:
    """Ask VERSION of TASK the same as its champion, and compare; its answers are not sent to clients.

    The endpoint tells at /v1/tasks/TASK how often the two agreed. It leaves comparisons out while it is busy.

    \b
    Examples:
      ship shadow bottle-caps 4
      ship shadow bottle-caps --stop --json
    """
    if stop == (version is not None):
        raise click.UsageError(f"name a version, as in `ship shadow {task} 4`, or --stop")
    rollouts = output.rollouts(author)
    if version is None:
        _print_stopped(output, task, "shadow", rollouts.stop_shadow(task), as_json)
        return
    started = rollouts.start_shadow(task, version)
    if as_json:
        output.print_json(_trials_json(task, started))
    else:
        output.print_line(
            f"{task}: version {version} is asked beside the champion now; no client gets its answers.",
        )


@click.command()
@click.option("--adopt", is_flag=True, help="Let the store belong to this MLflow from now on.")
@click.option("--drop", is_flag=True, help="Take tasks that MLflow lacks out of service, however many.")
@author_options
@json_option
@click.pass_obj
def sync(output: Output, adopt: bool, drop: bool, author: "Author", as_json: bool) -> None:
    """Bring the catalog, MLflow's aliases and the audit log in line with the rollouts.

    The endpoint does so every two seconds. It leaves tasks in service that many at a time are missing from
    MLflow, and refuses an MLflow that is not the one which the store belongs to: after a database was moved
    or lost, this command says what is right.

    \b
    Examples:
      ship sync
      ship sync --json | jq .missing
      MLFLOW_TRACKING_URI=http://mlflow.plant:5000 ship sync --adopt
      ship sync --drop
    """
    from orchestrator.registry.catalog_writer import CatalogWriter
    from orchestrator.registry.ownership import adopt as adopt_registry
    from orchestrator.registry.rollouts import Rollouts
    from orchestrator.store.settling import log_documents

    store, registry = output.prompt_store(), output.registry()
    log_documents(store)
    if adopt:
        owner = adopt_registry(store, registry, author=author)
        output.err.print(f"The store belongs to registry {owner.registry[:8]} now.", markup=False)
    rollouts = Rollouts(registry, store, author)
    change = CatalogWriter(registry, store, rollouts).update(may_drop=drop, looks_at_rollouts=True)
    if as_json:
        output.print_json(asdict(change))
        return
    output.print_line("The catalog is written." if change.is_written else "The catalog was in line already.")
    for word, tasks in (("left the catalog", change.lost), ("is missing from MLflow", change.missing)):
        for task in tasks:
            output.print_line(f"{task}: {word}")
    for task, problem in change.problems.items():
        output.print_line(f"{task}: {problem}")
    if change.missing:
        output.print_line("Tasks that are missing stay in service; `ship sync --drop` takes them out.")


def _find_pending(output: Output, infos: "Sequence[TaskInfo]") -> "dict[str, Rollout]":
    """Rollouts of tasks with a promotion that waits; none where the store cannot be read."""
    from orchestrator.errors import StoreError
    from orchestrator.store.approvals import read_rules

    try:
        # Rollouts take longer to load than the whole list: they are read where a task needs an approval only.
        if not infos or read_rules(output.objects()).are_empty:
            return {}
        return output.requests().pending(info.task for info in infos)
    except StoreError as error:
        output.err.print(f"what waits for an approval is not known: {error}", markup=False, soft_wrap=True)
        return {}


def _print_stopped(output: Output, task: str, role: str, before: "Trials", as_json: bool) -> None:
    """Say what has ended; ``before`` is what was tried until now."""
    if as_json:
        output.print_json(_trials_json(task, replace(before, **{role: None})))
        return
    ended = before.shadow if role == "shadow" else before.canary and before.canary.version
    what = f"version {ended} is no {role} any more" if ended else f"there was no {role}"
    output.print_line(f"{task}: {what}; the champion answers all requests.")


def _trials_json(task: str, trials: "Trials") -> dict[str, Any]:
    return {"task": task, **asdict(trials)}


COMMANDS = (list_tasks, show, promote, rollback, retire, canary, shadow, sync)
