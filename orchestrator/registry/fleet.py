"""The fleet: every task with what serves of it, in an order, and what of it needs a person first.

Plain values in, plain values out, and no call for each task: one listing of the registry and one object of
the store, the catalog, tell all of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from orchestrator.registry.plain_values import format_time, version_json
from ship.findings import find_warnings

if TYPE_CHECKING:
    from orchestrator.registry.versions import TaskInfo, VersionInfo
    from orchestrator.store.documents.catalog import Catalog

__all__ = [
    "ORDERS",
    "Catalogued",
    "Reason",
    "accuracy_of",
    "by_value",
    "find_reasons",
    "in_order",
    "read_catalogued",
    "standing_of",
    "task_json",
    "verdict_of",
]

ORDERS = ("task", "accuracy", "changed")
_Item = TypeVar("_Item")
Severity = Literal["bad", "warn", "info"]
_RANKS: Mapping[Severity, int] = {"bad": 0, "warn": 1, "info": 2}


@dataclass(frozen=True, kw_only=True)
class Catalogued:
    """What the catalog says of tasks.

    Attributes:
        versions: Version of each task that is served; None for none. Empty without a catalog.
        rules: Digest of the decision rule of that version; None for its own.
        problems: What is broken of tasks.
    """

    versions: Mapping[str, int | None] = field(default_factory=dict)
    rules: Mapping[str, str | None] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def is_behind(self, info: "TaskInfo") -> bool:
        """Whether the catalog has another version of a task than the registry's champion."""
        champion = info.champion.version if info.champion else None
        return info.task in self.versions and self.versions[info.task] != champion


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a task needs a person.

    Attributes:
        severity: ``bad``: answers are wrong, or there are none; ``warn``: they may be; ``info``: a decision
            waits.
        kind: Short name.
        text: A sentence without a full stop.
    """

    severity: Severity
    kind: str
    text: str

    @property
    def rank(self) -> int:
        """Place of the severity, the worst first."""
        return _RANKS[self.severity]


def read_catalogued(catalog: "Catalog | None", infos: Sequence["TaskInfo"]) -> Catalogued:
    """What the catalog says of those tasks.

    Args:
        catalog: The catalog; None if the store has none.
        infos: The tasks.
    """
    if catalog is None:
        return Catalogued()
    entries = {info.task: catalog.entries.get(info.task) for info in infos}
    return Catalogued(
        versions={task: None if entry is None else entry.version for task, entry in entries.items()},
        rules={task: entry.rules.get(entry.digest) for task, entry in entries.items() if entry is not None},
        problems={task: catalog.broken[task].problem for task in entries if task in catalog.broken},
    )


def standing_of(info: "TaskInfo") -> "VersionInfo | None":
    """The champion, or the challenger where there is none."""
    return info.champion or info.challenger


def verdict_of(info: "TaskInfo") -> str:
    """``serves``, ``retired``, or what a task without a champion needs, see ``report.kinds``."""
    if info.champion is not None:
        return "serves"
    if info.is_retired:
        return "retired"
    advice = None if info.challenger is None else info.challenger.advice
    return "unknown" if advice is None or advice.kind == "serves" else advice.kind


def find_reasons(
    info: "TaskInfo",
    catalogued: Catalogued,
    *,
    pending: Mapping[str, Any] | None = None,
    problem: str | None = None,
    drift: str | None = None,
) -> list[Reason]:
    """Why a task needs a person, the worst first; none of a task that was retired.

    Args:
        info: The task.
        catalogued: What the catalog says.
        pending: The promotion that waits for an approval, as ``pending_json`` has it.
        problem: Why an endpoint does not serve the version that it should.
        drift: Signals of an alarm of drift that nobody has taken note of, in words.
    """
    if info.is_retired:
        return []
    broken = (("registry", info.problem), ("catalog", catalogued.problems.get(info.task)))
    found = [Reason(severity="bad", kind=kind, text=text) for kind, text in broken if text]
    if problem:
        found.append(Reason(severity="bad", kind="endpoint", text=problem))
    if drift:
        text = f"its pictures differ from those that it was tuned on: {drift}"
        found.append(Reason(severity="warn", kind="drift", text=text))
    if info.champion is None:
        found.append(_waits(info))
    elif catalogued.is_behind(info) and not catalogued.problems.get(info.task):
        version = catalogued.versions[info.task]
        named = "nothing" if version is None else f"version {version}"
        champion = f"the champion, version {info.champion.version}"
        text = f"the catalog that endpoints follow has {named}, not {champion}"
        found.append(Reason(severity="warn", kind="behind", text=text))
    if info.champion is not None:
        found += [
            Reason(severity="warn", kind="finding", text=text)
            for text in find_warnings(info.champion.metrics)
        ]
    return sorted(found + _decisions(info, pending), key=lambda reason: reason.rank)


def _waits(info: "TaskInfo") -> Reason:
    advice = None if info.challenger is None else info.challenger.advice
    text = "no version serves" + (f": {advice.text}" if advice is not None and advice.text else "")
    return Reason(severity="bad", kind="idle", text=text)


def _decisions(info: "TaskInfo", pending: Mapping[str, Any] | None) -> list[Reason]:
    """Decisions that wait for a person."""
    found = []
    if pending is not None:
        void = ", and is void" if pending["is_void"] else ""
        text = f"the promotion of version {pending['version']} waits for an approval{void}"
        found.append(Reason(severity="info", kind="approval", text=text))
    elif info.champion is not None and info.challenger is not None:
        text = f"version {info.challenger.version} waits as the challenger"
        found.append(Reason(severity="info", kind="challenger", text=text))
    return found


def in_order(infos: Sequence["TaskInfo"], by: str, *, reverse: bool = False) -> list["TaskInfo"]:
    """Tasks by name, the least accurate first, or the latest change first; without an accuracy last.

    Args:
        infos: The tasks.
        by: One of ``ORDERS``.
        reverse: The other way round; what has no accuracy stays last.
    """
    named = sorted(infos, key=lambda info: info.task, reverse=reverse and by == "task")
    if by == "changed":
        return sorted(named, key=lambda info: info.updated_s, reverse=not reverse)
    if by == "accuracy":
        return by_value(named, accuracy_of, reverse=reverse)
    return named


def by_value(
    items: Iterable[_Item], value_of: Callable[[_Item], float | None], *, reverse: bool = False
) -> list[_Item]:
    """Items by a value, the least first; those without one last, whichever way round."""
    known = [(value_of(item), item) for item in items]
    measured = [(value, item) for value, item in known if value is not None]
    in_turn = [item for _, item in sorted(measured, key=lambda pair: pair[0], reverse=reverse)]
    return in_turn + [item for value, item in known if value is None]


def task_json(info: "TaskInfo") -> dict[str, Any]:
    """One task as plain values."""
    return {
        "task": info.task,
        "champion": version_json(info.champion) if info.champion else None,
        "challenger": version_json(info.challenger) if info.challenger else None,
        "canary": asdict(info.trials.canary) if info.trials.canary else None,
        "shadow": info.trials.shadow,
        "previous": info.previous,
        "latest": info.latest,
        "retired": info.is_retired,
        "serves_since": None if info.serves_since_s is None else format_time(info.serves_since_s),
        "updated": format_time(info.updated_s),
        "tags": info.own_tags,
    }


def accuracy_of(info: "TaskInfo") -> float | None:
    """Held-out accuracy of the champion, or of the challenger where there is none."""
    standing = standing_of(info)
    return None if standing is None else standing.metrics.get("accuracy")
