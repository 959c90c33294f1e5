"""The page of the endpoint: engines, residency by task, loads and swaps, trials, queue, latency, ages."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from orchestrator.client import ServedTask
from orchestrator.console.access import person_of, services_of
from orchestrator.console.endpoint_state import EndpointState, Samples
from orchestrator.console.rendering import add_page

__all__ = ["router"]

router = APIRouter()
Residency = Literal["", "served", "loading", "absent", "refused"]
_OF_ENGINES = {
    "resident": "ship_resident_prompts",
    "resident_bytes": "ship_resident_bytes",
    "tasks": "ship_catalog_tasks",
    "loads": "ship_prompt_loads_total",
    "load_failures": "ship_prompt_load_failures_total",
    "evictions": "ship_prompt_evictions_total",
    "swaps": "ship_swaps_total",
    "catalog_age_s": "ship_catalog_age_seconds",
}
# In the order in which a request passes them.
_STAGES = ("read", "decode", "engine", "queue", "forward", "draw")


def read_endpoint(
    request: Request,
    q: Annotated[str, Query(max_length=200)] = "",
    residency: Residency = "",
    size: Annotated[int, Query(ge=1, le=1000)] = 50,
    page: Annotated[int, Query(ge=1)] = 1,
) -> dict[str, Any]:
    """What the endpoint says of itself, and of tasks that the sender may see.

    Args:
        request: The request.
        q: Part of a task's name.
        residency: What the tasks are to be.
        size: Tasks of a page.
        page: Its number, from 1.
    """
    view = {"q": q, "residency": residency, "size": size}
    state = services_of(request).endpoint_state()
    if state is None:
        return {"url": None, "problems": [], "readiness": None, "view": view}
    person = person_of(request)
    seen = [task for name, task in sorted(state.tasks.items()) if person.sees(name)]
    rows = [_task_json(task) for task in seen]
    chosen = [row for row in rows if q in row["task"] and residency in ("", row["residency"])]
    num_pages = max(1, -(-len(chosen) // size))
    page = min(page, num_pages)
    return {
        "url": state.url,
        "problems": list(state.problems),
        "readiness": state.readiness,
        "engines": _engines(state.samples),
        "stages": _stages(state.samples),
        "batch": {
            "rows": _mean(state.samples, "ship_batch_rows"),
            "tasks": _mean(state.samples, "ship_batch_tasks"),
        },
        "replies": _replies(state.samples),
        "trials": _trials(state, seen),
        "counts": {kind: sum(row["residency"] == kind for row in rows) for kind in _KINDS},
        "tasks": chosen[(page - 1) * size : page * size],
        "num_tasks": len(rows),
        "num_chosen": len(chosen),
        "page": page,
        "num_pages": num_pages,
        "view": view,
    }


_KINDS = ("served", "loading", "absent", "refused")


def _task_json(task: ServedTask) -> dict[str, Any]:
    return {
        "task": task.task,
        "residency": _residency(task),
        "version": task.version,
        "wanted_version": task.wanted_version,
        "rule": task.rule,
        "wanted_rule": task.wanted_rule,
        "backbone": task.backbone,
        "problem": task.problem,
    }


def _residency(task: ServedTask) -> str:
    """``served`` as the registry says, ``loading`` (another answers), ``absent`` from memory, ``refused``."""
    if task.problem is not None:
        return "refused"
    if task.version is None:
        return "absent"
    is_current = (task.version, task.rule) == (task.wanted_version, task.wanted_rule)
    return "served" if is_current else "loading"


def _engines(samples: Samples) -> list[dict[str, Any]]:
    """Each engine's counts, of those that the metrics have."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, metric in _OF_ENGINES.items():
        for labels, value in samples.by(metric, "engine", "backbone").items():
            found.setdefault(labels, {"engine": labels[0], "backbone": labels[1]})[name] = value
    precisions = samples.by("ship_engine_precision", "engine", "precision")
    precision_of = {engine: precision for (engine, precision), is_on in precisions.items() if is_on}
    none = dict.fromkeys(_OF_ENGINES)
    return [
        {**none, **engine, "precision": precision_of.get(engine["engine"])}
        for _, engine in sorted(found.items())
    ]


def _stages(samples: Samples) -> list[dict[str, Any]]:
    """Time by stage since the endpoint's start, in seconds."""
    counts = samples.by("ship_stage_seconds_count", "stage")
    return [
        {
            "stage": stage,
            "count": counts[stage,],
            "mean_s": _mean(samples, "ship_stage_seconds", stage=stage),
            "p50_s": samples.quantile("ship_stage_seconds", 0.5, stage=stage),
            "p95_s": samples.quantile("ship_stage_seconds", 0.95, stage=stage),
        }
        for stage in _STAGES
        if counts.get((stage,))
    ]


def _mean(samples: Samples, name: str, **only: str) -> float | None:
    count = samples.total(f"{name}_count", **only)
    return (samples.total(f"{name}_sum", **only) or 0.0) / count if count else None


def _replies(samples: Samples) -> list[dict[str, Any]]:
    found = samples.by("ship_requests_total", "route", "status")
    return [
        {"route": route, "status": status, "count": count} for (route, status), count in sorted(found.items())
    ]


def _trials(state: EndpointState, tasks: Sequence[ServedTask]) -> list[dict[str, Any]]:
    """Tasks with a canary or a shadow, and how often a shadow agreed."""
    agreement: Mapping[str, Mapping[str, float]] = state.agreement()
    return [
        {
            "task": task.task,
            "version": task.version,
            "canary": task.canary,
            "shadow": task.shadow_version,
            **{"compared": None, "agreed": None},
            **(agreement.get(task.task, {}) if task.shadow_version else {}),
        }
        for task in tasks
        if task.canary or task.shadow_version
    ]


add_page(router, "/endpoint", "endpoint.html", read_endpoint)
