"""The page of the fleet: every task with what serves of it, what needs a person, and a map by two tags."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from orchestrator.console.access import person_of, services_of
from orchestrator.console.rendering import add_page
from orchestrator.console.services import Services
from orchestrator.errors import StoreError
from orchestrator.registry.fleet import (
    Catalogued,
    Reason,
    accuracy_of,
    by_value,
    find_reasons,
    read_catalogued,
    standing_of,
    verdict_of,
)
from orchestrator.registry.fleet_map import choose_axes, heat_map
from orchestrator.registry.plain_values import pending_json
from orchestrator.registry.versions import TaskInfo
from orchestrator.report.kinds import KINDS
from orchestrator.store.documents.drift import DriftEntry

__all__ = ["router"]

router = APIRouter()
Sort = Literal["attention", "task", "accuracy", "traffic", "changed"]
Verdict = Literal["serves", "needs-data", "needs-backbone", "withheld", "unknown", "retired"]
SIZES = (50, 100, 250)
# Of each tag, as suggestions of the form.
_MAX_SUGGESTIONS = 300


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A task, with what other services say of it.

    Attributes:
        info: The task.
        reasons: Why it needs a person.
        pending: The promotion that waits.
        answers: Answers since the endpoint's start; None if they are not known.
        unsure: How many of them were unsure.
        drift: Whether its pictures drift; None if that is not watched.
    """

    info: TaskInfo
    reasons: Sequence[Reason]
    pending: Mapping[str, Any] | None
    answers: float | None
    unsure: float | None
    drift: DriftEntry | None = None


def read_fleet(
    request: Request,
    q: Annotated[str, Query(max_length=200)] = "",
    tag: Annotated[list[str], Query(max_length=20)] = [],  # noqa: B006 - FastAPI copies it
    verdict: Verdict | Literal[""] = "",
    sort: Sort = "attention",
    reverse: bool = False,
    retired: bool = False,
    size: Annotated[int, Query(ge=1, le=1000)] = SIZES[0],
    page: Annotated[int, Query(ge=1)] = 1,
    across: Annotated[str, Query(max_length=200)] = "",
    down: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, Any]:
    """Tasks that the sender may see, chosen, in an order and a page at a time.

    Args:
        request: The request.
        q: Part of a name, or of a tag's value.
        tag: ``KEY=VALUE``; a task must have all.
        verdict: What the tasks are to be.
        sort: Order; ``attention`` is what needs a person first.
        reverse: The other way round.
        retired: Retired tasks, too.
        size: Tasks of a page.
        page: Its number, from 1.
        across: Tag of the map's columns.
        down: Tag of the map's rows.
    """
    services, person = services_of(request), person_of(request)
    infos = [info for info in services.tasks() if person.sees(info.task)]
    tags = {info.task: info.own_tags for info in infos}
    messages: list[str] = []
    catalogued = _catalogued(services, infos, messages)
    rows = _rows(services, infos, catalogued, messages)
    wanted = [_pair(text) for text in tag if text]
    chosen = [
        row
        for row in rows
        if _is_chosen(row.info, tags[row.info.task], q.strip().casefold(), wanted, verdict, retired)
    ]
    ordered = _in_order(chosen, sort, reverse=reverse)
    num_pages = max(1, -(-len(ordered) // size))
    page = min(page, num_pages)
    axes = choose_axes(tags.values(), across or None, down or None)
    return {
        "tasks": [_row_json(row, catalogued) for row in ordered[(page - 1) * size : page * size]],
        "num_tasks": len(infos),
        "num_chosen": len(ordered),
        "counts": _counts(rows),
        "page": page,
        "num_pages": num_pages,
        "map": None if axes is None else heat_map([row.info for row in chosen], *axes),
        "tags": _tag_values(tags.values()),
        "messages": messages,
        "endpoint": None if services.endpoint is None else str(services.endpoint.url),
        "view": {"q": q, "tag": [text for text in tag if text], "verdict": verdict, "sort": sort}
        | {"reverse": reverse, "retired": retired, "size": size, "across": across, "down": down},
    }


def _catalogued(services: Services, infos: Sequence[TaskInfo], messages: list[str]) -> Catalogued:
    try:
        return read_catalogued(services.catalog(), infos)
    except StoreError as error:
        messages.append(f"What is served is not known: {error}")
        return Catalogued()


def _rows(
    services: Services, infos: Sequence[TaskInfo], catalogued: Catalogued, messages: list[str]
) -> list[_Row]:
    try:
        pending = {task: pending_json(rollout) for task, rollout in services.pending().items()}
    except StoreError as error:
        messages.append(f"What waits for an approval is not known: {error}")
        pending = {}
    state = services.endpoint_state()
    messages += [] if state is None else state.problems
    traffic = {} if state is None else state.traffic()
    problems = {} if state is None else {name: task.problem for name, task in state.tasks.items()}
    drifts = _drifts(services, messages)
    return [
        _Row(
            info=info,
            reasons=find_reasons(
                info,
                catalogued,
                pending=pending.get(info.task),
                problem=problems.get(info.task),
                drift=_signals(drifts.get(info.task)),
            ),
            pending=pending.get(info.task),
            answers=traffic.get(info.task, {}).get("answers"),
            unsure=traffic.get(info.task, {}).get("unsure"),
            drift=drifts.get(info.task),
        )
        for info in infos
    ]


def _drifts(services: Services, messages: list[str]) -> Mapping[str, DriftEntry]:
    try:
        return services.drift().tasks
    except StoreError as error:
        messages.append(f"Whether pictures drift is not known: {error}")
        return {}


def _signals(entry: DriftEntry | None) -> str | None:
    if entry is None or not entry.is_alarming or entry.alarm is None:
        return None
    return ", ".join(entry.alarm.signals)


def _drift_json(entry: DriftEntry | None) -> dict[str, str] | None:
    """The state of a task that is watched, and the kind of its badge."""
    if entry is None or entry.not_watched is not None:
        return None
    kinds = {"alarm": "bad", "acknowledged": "warn"}
    return {"text": entry.state, "kind": kinds.get(entry.state, "good")}


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _is_chosen(
    info: TaskInfo,
    tags: Mapping[str, str],
    text: str,
    wanted: Sequence[tuple[str, str]],
    verdict: str,
    retired: bool,
) -> bool:
    if info.is_retired and not retired and verdict != "retired":
        return False
    if verdict and verdict_of(info) != verdict:
        return False
    if any(tags.get(key) != value for key, value in wanted):
        return False
    return not text or text in info.task or any(text in value.casefold() for value in tags.values())


def _in_order(rows: Sequence[_Row], sort: Sort, *, reverse: bool) -> list[_Row]:
    named = sorted(rows, key=lambda row: row.info.task, reverse=reverse and sort == "task")
    values: dict[str, Callable[[_Row], float | None]] = {
        "accuracy": lambda row: accuracy_of(row.info),
        # The most first.
        "traffic": lambda row: None if row.answers is None else -row.answers,
        "changed": lambda row: -row.info.updated_s,
    }
    if sort in values:
        return by_value(named, values[sort], reverse=reverse)
    return sorted(named, key=_urgency, reverse=reverse) if sort == "attention" else named


def _urgency(row: _Row) -> tuple[int, int, float]:
    """The worst reason first, then the most reasons, then the least accurate."""
    if not row.reasons:
        return 9, 0, 0.0
    accuracy = accuracy_of(row.info)
    return row.reasons[0].rank, -len(row.reasons), 1.0 if accuracy is None else accuracy


def _row_json(row: _Row, catalogued: Catalogued) -> dict[str, Any]:
    info, standing = row.info, standing_of(row.info)
    metrics = {} if standing is None else standing.metrics
    canary = info.trials.canary
    return {
        "task": info.task,
        "verdict": verdict_of(info),
        "verdict_text": KINDS.get(verdict_of(info), verdict_of(info)),
        "champion": None if info.champion is None else info.champion.version,
        "accuracy": metrics.get("accuracy"),
        "accuracy_low": metrics.get("accuracy_low"),
        "accuracy_high": metrics.get("accuracy_high"),
        "probe_accuracy": metrics.get("probe_accuracy"),
        "is_of_challenger": info.champion is None and standing is not None,
        # Null is the rule that came with the version.
        "rule": catalogued.rules.get(info.task),
        "serves": catalogued.versions.get(info.task),
        "challenger": None if info.challenger is None else info.challenger.version,
        "canary": None if canary is None else asdict(canary),
        "shadow": info.trials.shadow,
        "pending": row.pending,
        "answers": row.answers,
        "unsure": row.unsure,
        "drift": _drift_json(row.drift),
        "changed_s": info.updated_s or None,
        "serves_since_s": info.serves_since_s,
        "tags": info.own_tags,
        "reasons": [asdict(reason) for reason in row.reasons],
    }


def _counts(rows: Sequence[_Row]) -> dict[str, int]:
    """How many tasks there are of each verdict, and that need a person."""
    counts = Counter(verdict_of(row.info) for row in rows)
    severities = Counter(row.reasons[0].severity for row in rows if row.reasons)
    return {**counts, **{f"attention_{severity}": number for severity, number in severities.items()}}


def _tag_values(tags: Sequence[Mapping[str, str]] | Any) -> dict[str, list[str]]:
    """Values of each tag, for the form."""
    values: dict[str, set[str]] = defaultdict(set)
    for one in tags:
        for name, value in one.items():
            values[name].add(value)
    return {name: sorted(found)[:_MAX_SUGGESTIONS] for name, found in sorted(values.items())}


add_page(router, "/fleet", "fleet.html", read_fleet)
