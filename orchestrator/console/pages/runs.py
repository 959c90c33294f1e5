"""Pages of runs: those that are kept, one with its plan, tasks, failures and report, and its events.

They read the files that a run leaves in the console's home, as ``ship runs``, ``status`` and ``logs`` do, and
ask a run at work for what ``ship cancel`` and ``ship retry`` ask for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.console.access import Person, Scope, person_of, requires, services_of
from orchestrator.console.rendering import add_page, render
from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.report.kinds import KINDS
from orchestrator.train.ledger.status import MEASURED, RunStatus, TaskStatus
from orchestrator.train.run.control import cancel_tasks, retry_tasks, stop_run
from orchestrator.train.run.text import (
    describe_counts,
    describe_event,
    describe_figures,
    describe_note,
    describe_state,
    worker_name,
)
from orchestrator.train.run.view import RunView, list_runs

__all__ = ["router"]

MAX_ROWS, MAX_LAST_EVENTS, MAX_EVENTS = 200, 15, 500
# What needs a person comes first.
_RANK = {"failed": 0, "leased": 1, "pending": 2, "cancelled": 3, "done": 4}
_ABOUT = ("run", "manifest", "host", "pid", "started_s")
# The report is of all tasks.
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
)

router = APIRouter()


def read_runs(request: Request) -> dict[str, Any]:
    """The runs of this home, the one at work first."""
    person, home = person_of(request), services_of(request).home
    return {"runs": [_run_row(RunView(home, about.run), person) for about in list_runs(home)]}


def read_run(request: Request, run: str, state: str = "", q: str = "") -> dict[str, Any]:
    """A run: its plan, its tasks as they are now, its last events, and what its report says in short."""
    person, view = person_of(request), _find(request, run)
    found = view.status()
    shown = None if found is None else _visible(found[0], person)
    is_over = not view.is_at_work
    tasks = () if shown is None else shown.tasks
    wanted = [one for one in tasks if state in ("", one.state) and q in one.task]
    wanted.sort(key=lambda one: _RANK[one.state])
    now_s = services_of(request).clock()
    return {
        **_about(view),
        "is_at_work": not is_over,
        "time_s": None if found is None else found[1],
        "summary": None if shown is None else describe_counts(shown, is_over),
        "counts": {} if shown is None else dict(shown.counts()),
        "plan": _plan(view.plan(), person),
        "tasks": [_task_row(one, is_over, now_s) for one in wanted[:MAX_ROWS]],
        "num_more": max(0, len(wanted) - MAX_ROWS),
        "events": [_event_row(one) for one in view.last_events(5 * MAX_LAST_EVENTS) if person.sees(one.task)][
            -MAX_LAST_EVENTS:
        ],
        "report": _report(view.report(), person),
    }


def read_events(request: Request, run: str, task: str = "") -> dict[str, Any]:
    """The last events of a run, or of a task of it, with the whole cause of each failure."""
    person, view = person_of(request), _find(request, run)
    found = [one for one in view.events(task or None) if person.sees(one.task)]
    return {
        **_about(view),
        "task": task,
        "events": [_event_row(one) for one in found[-MAX_EVENTS:]],
        "num_more": max(0, len(found) - MAX_EVENTS),
    }


add_page(router, "/runs", "runs.html", read_runs)
add_page(router, "/runs/{run}/status", "run.html", read_run)
add_page(router, "/runs/{run}/events", "run_events.html", read_events)


@router.get("/runs/{run}/live")
def show_live(request: Request, data: Annotated[dict[str, Any], Depends(read_run)]) -> Response:
    """The part of a run's page that changes while it is at work."""
    return render(request, "run_live.html", data)


@router.get("/runs/{run}/report")
def show_report(request: Request, run: str) -> Response:
    """The report as the run wrote it, in a sandbox: its styles and thumbnails are its own; no script runs."""
    page = _find(request, run).page() if person_of(request).sees_all else None
    if page is None:
        raise HTTPException(404, "This run has no report that this token may see.")
    headers = {"Content-Security-Policy": _REPORT_POLICY}
    return Response(page, media_type="text/html", headers=headers)


_Decider = Annotated[Person, Depends(requires(Scope.DECIDE))]
_Tasks = Annotated[list[str], Form(max_length=MAX_ROWS)]


@router.post("/runs/{run}/cancel")
def cancel(request: Request, run: str, person: _Decider, task: _Tasks) -> Response:
    """Leave tasks of the run at work."""
    cancel_tasks(_find_at_work(request, run), _checked(task, person))
    return _back(run)


@router.post("/runs/{run}/retry")
def retry(request: Request, run: str, person: _Decider, task: _Tasks) -> Response:
    """Take failed or cancelled tasks of the run at work up again."""
    found = retry_tasks(_find_at_work(request, run), _checked(task, person))
    if found.refused:
        raise ExecutionError("; ".join(f"{name}: {reason}" for name, reason in found.refused.items()))
    return _back(run)


@router.post("/runs/{run}/stop")
def stop(request: Request, run: str, person: _Decider) -> Response:
    """End the run at work, as Ctrl-C does."""
    if not person.sees_all:
        raise HTTPException(403, "This takes a token for all tasks (--predict '*').")
    stop_run(_find_at_work(request, run))
    return _back(run)


def _find(request: Request, run: str) -> RunView:
    try:
        return RunView(services_of(request).home, run)
    except ExecutionError as error:
        raise HTTPException(404, f"No run {run[:80]!r} is kept in the home of this console.") from error


def _find_at_work(request: Request, run: str) -> RunView:
    view = _find(request, run)
    if not view.is_at_work:
        raise ExecutionError("this run is over; `ship tune` with its manifest takes up what is not published")
    return view


def _checked(tasks: Sequence[str], person: Person) -> Sequence[str]:
    for task in tasks:
        person.check_sees(task)
    return tasks


def _back(run: str) -> Response:
    return RedirectResponse(f"/runs/{run}/status", 303)


def _about(view: RunView) -> dict[str, Any]:
    return {name: value for name, value in vars(view.about()).items() if name in _ABOUT}


def _visible(status: RunStatus, person: Person) -> RunStatus:
    return replace(status, tasks=tuple(one for one in status.tasks if person.sees(one.task)))


def _run_row(view: RunView, person: Person) -> dict[str, Any]:
    found, is_over = view.status(), not view.is_at_work
    shown = None if found is None else _visible(found[0], person)
    return {
        **_about(view),
        "is_at_work": not is_over,
        "counts": {} if shown is None else dict(shown.counts()),
        "summary": "" if shown is None else describe_counts(shown, is_over),
    }


def _plan(plan: Mapping[str, Any] | None, person: Person) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        **plan,
        "to_tune": [one for one in plan["to_tune"] if person.sees(one["task"])],
        "to_reuse": [task for task in plan["to_reuse"] if person.sees(task)],
        "refused": [one for one in plan["refused"] if person.sees(one["task"])],
        # They name tasks in their text.
        "warnings": plan["warnings"] if person.sees_all else [],
    }


def _task_row(status: TaskStatus, is_over: bool, now_s: float) -> dict[str, Any]:
    is_tuned = status.state == "leased" and status.num_epochs > 0 and not is_over
    return {
        "task": status.task,
        "state": status.state,
        "word": describe_state(status, is_over),
        "worker": worker_name(status.worker) if status.state == "leased" else "",
        "attempt": status.attempt,
        "progress": status.epoch / status.num_epochs if is_tuned else None,
        "figures": describe_figures(status, is_over, now_s) if status.state != "done" else [],
        "note": describe_note(status, is_over),
        **{name: getattr(status, name) for name in MEASURED},
    }


def _event_row(event: Event) -> dict[str, Any]:
    return {
        "time_s": event.time_s,
        "task": event.task,
        "attempt": event.attempt,
        "kind": event.kind,
        "told": describe_event(event),
        "detail": str(event.data.get("detail") or "").rstrip(),
    }


def _report(document: Mapping[str, Any] | None, person: Person) -> dict[str, Any] | None:
    """The verdicts of a report; the rest is on its own page."""
    if document is None:
        return None
    rows = [
        {
            "task": one["task"],
            "verdict": KINDS.get(one["verdict"]["kind"], one["verdict"]["kind"]),
            "kind": one["verdict"]["kind"],
            "reason": one["verdict"].get("reason") or "",
            "advice": one["verdict"].get("advice") or "",
            **{
                name: one.get(name)
                for name in ("accuracy", "accuracy_low", "accuracy_high", "probe_accuracy")
            },
        }
        for one in document["tasks"]
        if person.sees(one["task"])
    ]
    return {"summary": document["summary"] if person.sees_all else "", "tasks": rows}
