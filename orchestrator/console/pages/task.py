"""The page of a task: its versions, what the one that is looked at gets wrong, where it comes from."""

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.console.access import services_of
from orchestrator.console.rendering import add_page, with_query
from orchestrator.console.tasks import check_task, choose, find_version, look_of, versions_of
from orchestrator.errors import RegistryError, StoreError
from orchestrator.registry.figures import draw_affinity
from orchestrator.registry.plain_values import entry_json, pending_json, version_json
from orchestrator.registry.runs import RunLog
from orchestrator.registry.versions import CHAMPION, VersionInfo
from orchestrator.report.section import make_section
from ship.artifact.card import CARD, RECORD
from ship.decision.mistakes import find_good_label

if TYPE_CHECKING:
    from orchestrator.console.services import Services
    from orchestrator.registry.evidence import Evidence
    from orchestrator.store.documents.rollout import Rollout

__all__ = ["router"]

NUM_SHOWN, MAX_SHOWN = 48, 500
# Entries of the audit log that are looked through for those of one task, and those that are shown.
NUM_LOOKED_AT, NUM_ENTRIES = 300, 20
MAX_MATRIX, NUM_CONFUSED = 30, 50
_SERIES = ("accuracy", "accuracy_low", "accuracy_high", "probe_accuracy", "balanced_accuracy")
_FIGURES = (
    *("accuracy", "balanced_accuracy", "calibration_error", "decision", "good", "escapes", "false_rejects"),
    *("num_images", "num_kept", "labels", "recall"),
)
_LINEAGE = {
    "ship.run": "run",
    "ship.version": "ship",
    "ship.host": "host",
    "mlflow.user": "user",
    "mlflow.source.name": "manifest",
    "ship.manifest_digest": "manifest digest",
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.dirty": "changed since the commit",
    "ship.worker": "worker",
}
_BROKEN = (KeyError, ValueError, TypeError, IndexError, AttributeError)
_Version = Annotated[int | None, Query(ge=1, le=1_000_000)]
router = APIRouter()


def read_task(
    request: Request,
    task: str,
    version: _Version = None,
    truth: str | None = None,
    answer: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_SHOWN)] = NUM_SHOWN,
) -> dict[str, Any]:
    """Everything about a task, and about the version that is looked at.

    Args:
        request: The request.
        task: Name of the task.
        version: The version; None for the champion, else the challenger, else the newest.
        truth: Label of the confusion matrix's row whose pictures are shown, with ``answer``.
        answer: Label of its column.
        limit: Pictures to show.
    """
    versions = versions_of(request, task)
    info = choose(versions, version)
    services = services_of(request)
    rollout, problems = _read_rollout(services, task)
    view = services.registry.view(task)
    aliases = {} if view is None else dict(view.aliases)
    problems += [view.problem] if view is not None and view.problem else []
    rules = {} if rollout is None else rollout.rules
    return {
        "task": task,
        "aliases": aliases,
        "is_retired": CHAMPION not in aliases and "retired" in aliases,
        "pending": pending_json(rollout),
        "problems": problems,
        "versions": [
            {**version_json(one), "created_s": one.created_s, "rule": rules.get(one.digest or "")}
            for one in versions
        ],
        "series": _series(versions),
        "version": info.version,
        **_read_artifact(services, task, info),
        **_read_pictures(request, task, info, truth, answer, limit),
        "lineage": _lineage(services, info),
        "audit": _audit(services, task),
    }


def _read_rollout(services: "Services", task: str) -> tuple["Rollout | None", list[str]]:
    try:
        stored = services.store.read_rollout(task)
    except StoreError as error:
        return None, [str(error)]
    return (None if stored is None else stored[0]), []


def _series(versions: list[VersionInfo]) -> dict[str, list[Any]]:
    """Metrics by time of registration, oldest first."""
    rising = sorted(versions, key=lambda info: (info.created_s, info.version))
    return {
        "version": [info.version for info in rising],
        "time_s": [info.created_s for info in rising],
        **{name: [info.metrics.get(name) for info in rising] for name in _SERIES},
    }


def _read_artifact(services: "Services", task: str, info: VersionInfo) -> dict[str, Any]:
    """What the artifact says of its tuning; ``artifact_problem`` where it cannot be read."""
    nothing = {"section": None, "levels": None}
    if info.digest is None:
        return {**nothing, "artifact_problem": "This version was registered by another program."}
    try:
        files = services.store.fetch(info.digest)
        card, record = json.loads(files[CARD]), json.loads(files[RECORD])
        section = make_section(card, record, None, verdict={"task": task})
        levels = None
        if "affinity" in record:
            levels = {"starts": record["level_starts"], "threshold": record["threshold"]}
        return {"section": section.values, "levels": levels, "artifact_problem": None}
    except StoreError as error:
        return {**nothing, "artifact_problem": str(error)}
    except _BROKEN as error:
        return {**nothing, "artifact_problem": f"The artifact's records cannot be read: {error!r}"[:300]}


def _read_pictures(
    request: Request, task: str, info: VersionInfo, truth: str | None, answer: str | None, limit: int
) -> dict[str, Any]:
    """The confusion matrix and pictures; ``held_out_problem`` where no answers are kept."""
    try:
        look = look_of(request)
        evidence = look.evidence(task, info)
        report = look.report(task, evidence)
    except (RegistryError, StoreError) as error:
        return {"held_out": None, "pictures": None, "held_out_problem": str(error)}
    narrow = [{**_picture(evidence, one["place"]), **one} for one in report["narrowest"]]
    if (truth, answer) == (None, None):
        shown = [{**_picture(evidence, one["place"]), **one} for one in report["mistakes"][:limit]]
        total = len(report["mistakes"])
    else:
        places = _cell(evidence, truth, answer)
        shown, total = [_picture(evidence, place) for place in places[:limit]], len(places)
    return {
        "held_out": {
            **{name: report[name] for name in _FIGURES},
            "confusion": report["confusion"] if len(report["labels"]) <= MAX_MATRIX else None,
            "confused": _confused(report),
        },
        "pictures": {
            "truth": truth,
            "answer": answer,
            "total": total,
            "limit": limit,
            "shown": shown,
            "narrow": narrow,
        },
        "held_out_problem": None,
    }


def _cell(evidence: "Evidence", truth: str | None, answer: str | None) -> list[int]:
    """Places of the pictures of a cell, the most certain answer first.

    Raises:
        HTTPException: 404, there is no such cell.
    """
    answers = evidence.answers
    if truth not in answers.labels or answer not in answers.labels:
        raise HTTPException(404, "There is no such cell: name a label as `truth` and one as `answer`.")
    row, column = answers.labels.index(truth), answers.labels.index(answer)
    found = [
        (evidence.rule.probabilities(logits_C)[column], place)
        for place, logits_C in enumerate(answers.logits_BC)
        if answers.labels_B[place] == row and logits_C.index(max(logits_C)) == column
    ]
    return [place for _, place in sorted(found, key=lambda one: (-one[0], one[1]))]


def _picture(evidence: "Evidence", place: int) -> dict[str, Any]:
    """One held-out picture with its answer and decision."""
    answers, rule = evidence.answers, evidence.rule
    logits_C = answers.logits_BC[place]
    distance = None if answers.distances_B is None else answers.distances_B[place]
    decision = rule.decide(answers.labels, logits_C, distance)
    top = logits_C.index(max(logits_C))
    truth = answers.labels_B[place]
    return {
        "place": place,
        "path": answers.paths[place],
        "label": answers.labels[truth],
        "answer": answers.labels[top],
        "probability": decision.probabilities[top],
        "label_probability": decision.probabilities[truth],
        "decision": decision.label,
        "because": decision.because,
        "is_false_accept": top != truth and answers.labels[top] == find_good_label(answers.labels),
    }


def _confused(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The most frequent confusions."""
    labels = report["labels"]
    found = [
        {"truth": labels[row], "answer": labels[column], "images": number}
        for row, counts in enumerate(report["confusion"])
        for column, number in enumerate(counts)
        if number and row != column
    ]
    return sorted(found, key=lambda one: -one["images"])[:NUM_CONFUSED]


def _lineage(services: "Services", info: VersionInfo) -> dict[str, Any]:
    """Where a version comes from, by its run; without its tags where MLflow does not have that."""
    known: dict[str, Any] = {
        "digest": info.digest,
        "backbone": info.tags.get("ship.backbone"),
        "data": None,
        "data_fingerprint": info.data_fingerprint,
        "run_id": info.run_id,
        "run": {},
        "problem": None,
    }
    if info.run_id is None:
        return {**known, "problem": "It has no run: it was registered by hand or by another program."}
    try:
        data, tags = RunLog(services.registry.session).origin(info.run_id)
    except RegistryError as error:
        return {**known, "problem": str(error)}
    source = None if data is None else {"source": data.source, "settings": dict(data.settings)}
    told = {said: tags[tag] for tag, said in _LINEAGE.items() if tag in tags}
    return {**known, "data": source, "run": told}


def _audit(services: "Services", task: str) -> list[dict[str, Any]]:
    """The last entries of the audit log about a task, as far as they are among the last of all."""
    try:
        newest = islice(services.audit.newest(), NUM_LOOKED_AT)
        found = [entry_json(entry) for entry in newest if entry.record.task == task]
    except StoreError:
        return []
    return found[:NUM_ENTRIES]


@router.get("/tasks/{task}/affinity.svg")
def get_affinity(request: Request, task: str, version: _Version = None) -> Response:
    """The affinity of layers, with a frame around each level."""
    info = find_version(request, task, version)
    if info.digest is None:
        raise HTTPException(404, "This version was registered by another program.")
    try:
        record = json.loads(services_of(request).store.fetch(info.digest)[RECORD])
        picture = draw_affinity(record["affinity"], record["level_starts"], record["threshold"])
    except _BROKEN:
        raise HTTPException(404, "This version has no affinity on record.") from None
    return Response(picture, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=3600"})


@router.get("/tasks/{task}")
def go_to_task(request: Request, task: str) -> Response:
    """The page of a task, whose path ends in a word: a task may be called ``caps.json``."""
    check_task(request, task)
    return RedirectResponse(with_query(f"/tasks/{task}/about", dict(request.query_params)), 303)


add_page(router, "/tasks/{task}/about", "task.html", read_task)
