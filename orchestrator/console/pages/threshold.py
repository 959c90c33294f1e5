"""The page of a decision rule: a slider over held-out pictures, and what each of its steps would mean."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.console.access import Person, Scope, requires, services_of
from orchestrator.console.rendering import add_page, with_query
from orchestrator.console.tasks import check_task, choose, look_of, versions_of
from orchestrator.errors import ManifestError, RegistryError, StoreError
from orchestrator.registry.plain_values import place_json, rule_json
from orchestrator.store.documents.audit import Author
from ship.artifact.held_out import HeldOut
from ship.decision.mistakes import find_good_label
from ship.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.registry.sweeps import Knob

__all__ = ["router"]

_Version = Annotated[int | None, Query(ge=1, le=1_000_000)]
_LABELS_LISTED = 60
router = APIRouter()


def read_threshold(
    request: Request,
    task: str,
    version: _Version = None,
    knob: str | None = None,
    label: str | None = None,
    value: Annotated[float | None, Query(ge=0.0, le=1e6)] = None,
    preview: bool = False,
) -> dict[str, Any]:
    """The rule of a version, and the steps of one of its settings.

    Args:
        request: The request.
        task: Name of the task.
        version: The version; None for the champion, else the challenger, else the newest.
        knob: ``recall``, ``confidence`` or ``escape``; None for what suits the task.
        label: Label whose recall is meant.
        value: Value at which the pictures are shown.
        preview: Whether the rule of ``value`` is measured as ``ship threshold --dry-run`` measures it.
    """
    versions = versions_of(request, task)
    info = choose(versions, version)
    # A look, which changes nothing and has no author.
    thresholds = services_of(request).thresholds(Author.of_process())
    standing = thresholds.standing(task, info.version, may_be_broken=True)
    about = {
        **place_json(standing),
        "versions": [one.version for one in versions],
        "labels": list(standing.labels)[:_LABELS_LISTED],
        "standing": rule_json(standing.rule, standing),
        "broken": standing.digest is not None and standing.stored is None,
    }
    turned = _knob(standing.labels, knob, label)
    try:
        found = look_of(request).sweep(thresholds, standing, turned)
        at = _step_at(found["steps"], found["knob"]["value"] if value is None else value)
        about |= {"sweep": found, "at": at, "problem": None}
        about["movers"] = _movers(look_of(request).evidence(task, info).answers, found, at)
    except (ConfigError, RegistryError, StoreError) as error:
        return {**about, "knob": vars(turned), "sweep": None, "problem": str(error), "preview": None}
    chosen = None
    if preview:
        wishes = turned.wishes(found["steps"][at]["value"], standing.rule or standing.own)
        chosen = rule_json(thresholds.choose(standing, wishes), None)
    return {**about, "knob": vars(turned), "preview": chosen}


def _knob(labels: tuple[str, ...], kind: str | None, label: str | None) -> "Knob":
    """The setting that is turned; by default the recall of the first class that is not good."""
    from orchestrator.registry.sweeps import KNOBS, Knob

    found = next((one for one in KNOBS if one == (kind or "recall")), None)
    if found is None:
        raise HTTPException(422, f"knob: expected one of {', '.join(KNOBS)}, got {(kind or '')[:40]!r}")
    if found == "recall":
        good = find_good_label(labels)
        label = label or next((one for one in labels if one != good), labels[0])
        return Knob(kind="recall", label=label)
    return Knob(kind=found)


def _step_at(steps: list[dict[str, Any]], value: float | None) -> int:
    """Place of the step that is closest to a value; the first, of costs that a rule does not weigh."""
    if value is None:
        return 0
    return min(range(len(steps)), key=lambda place: abs(steps[place]["value"] - value))


def _movers(answers: HeldOut, found: dict[str, Any], at: int) -> list[dict[str, Any]]:
    """The pictures that cross the line, with what the step makes of them, where there is no script."""
    from ship.decision.rule import Costs, DecisionRule

    settings = found["steps"][at]["rule"]
    costs = settings["costs"]
    rule = DecisionRule(**{**settings, "costs": None if costs is None else Costs(**costs)})
    told = []
    for place in found["movers"]:
        distance = None if answers.distances_B is None else answers.distances_B[place]
        decision = rule.decide(answers.labels, answers.logits_BC[place], distance)
        label = answers.labels[answers.labels_B[place]]
        told.append(
            {
                "place": place,
                "path": answers.paths[place],
                "label": label,
                "decision": decision.label,
                "because": decision.because,
                "outcome": "unsure" if decision.because else "right" if decision.label == label else "wrong",
            }
        )
    return told


@router.post("/tasks/{task}/threshold")
def save_threshold(
    request: Request,
    task: str,
    version: Annotated[int, Form(ge=1)],
    knob: Annotated[str, Form()],
    instead_of: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
    value: Annotated[float | None, Form(ge=0.0, le=1e6)] = None,
    label: Annotated[str | None, Form()] = None,
    person: Person = Depends(requires(Scope.DECIDE)),
) -> Response:
    """Let a version decide by the rule of a step, or by its own again (``knob`` is ``reset``).

    It is what ``ship threshold`` does with the same value.

    Args:
        request: The request.
        task: Name of the task.
        version: The version.
        knob: The setting.
        instead_of: Digest of the rule that the form showed; empty for the artifact's own.
        reason: Why.
        value: Its new value.
        label: Label whose recall is meant.
        person: Who decides.
    """
    check_task(request, task)
    thresholds = services_of(request).thresholds(person.author(reason))
    standing = thresholds.standing(task, version, may_be_broken=True)
    if (standing.digest or "") != instead_of:
        raise RegistryError(
            f"the rule of version {version} of task {task!r} was changed meanwhile; open the page again and "
            "repeat the change"
        )
    if knob == "reset":
        thresholds.set(standing, None)
    elif value is None:
        raise ManifestError("value: expected a number")
    else:
        wishes = _knob(standing.labels, knob, label).wishes(value, standing.rule or standing.own)
        thresholds.set(standing, thresholds.choose(standing, wishes))
    shown = {"version": version, "knob": None if knob == "reset" else knob, "label": label}
    return RedirectResponse(with_query(f"/tasks/{task}/threshold", shown), 303)


add_page(router, "/tasks/{task}/threshold", "threshold.html", read_threshold)
