"""One held-out picture of a task: its probabilities, what the network attended to, what it was trained on."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from orchestrator.console.rendering import add_page
from orchestrator.console.tasks import evidence_of, look_of
from orchestrator.errors import ServeError
from ship.errors import ShipError

__all__ = ["router"]

MAX_CLASSES = 12
_Place = Annotated[int, Query(ge=0, le=1_000_000)]
_Version = Annotated[int | None, Query(ge=1, le=1_000_000)]
# Of a thumbnail: what it shows may be gone or changed a little later, which the next look tells.
_BRIEFLY = {"Cache-Control": "private, max-age=60"}
router = APIRouter()


def read_picture(request: Request, task: str, place: _Place, version: _Version = None) -> dict[str, Any]:
    """What a version makes of a held-out picture, and whether that can still be seen.

    Args:
        request: The request.
        task: Name of the task.
        place: Place of the picture in the version's held-out list.
        version: The version.
    """
    evidence = evidence_of(request, task, version)
    look = look_of(request)
    found = look.picture(task, evidence, place)
    answers, rule = evidence.answers, evidence.rule
    logits_C = answers.logits_BC[place]
    distance = None if answers.distances_B is None else answers.distances_B[place]
    decision = rule.decide(answers.labels, logits_C, distance)
    ranked = sorted(range(len(logits_C)), key=logits_C.__getitem__, reverse=True)
    probe_C = None if answers.probe_logits_BC is None else answers.probe_logits_BC[place]
    return {
        "task": task,
        "version": evidence.version,
        "place": place,
        "num_pictures": len(answers),
        "path": answers.paths[place],
        "label": answers.labels[answers.labels_B[place]],
        "answer": answers.labels[ranked[0]],
        "decision": decision.label,
        "because": decision.because,
        "distance": distance,
        "max_distance": rule.max_distance,
        "probe_answer": None if probe_C is None else answers.labels[probe_C.index(max(probe_C))],
        "probabilities": [
            {"label": answers.labels[one], "probability": decision.probabilities[one]}
            for one in ranked[:MAX_CLASSES]
        ],
        "num_classes": len(answers.labels),
        "state": found.state,
        "detail": found.detail,
        "has_thumbnail": found.jpeg is not None,
        "attention_problem": _attention_problem(found.state, can_explain=look.can_explain),
    }


def _attention_problem(state: str, *, can_explain: bool) -> str | None:
    if state != "same":
        return "the picture that was measured is not at hand"
    if can_explain:
        return None
    return (
        "this console was given no endpoint (`--endpoint`), and was not told to compute (`ship console "
        "--compute`)"
    )


def read_nearest(request: Request, task: str, place: _Place, version: _Version = None) -> dict[str, Any]:
    """The training pictures that are most like a held-out one, or why there are none."""
    evidence = evidence_of(request, task, version)
    about = {"task": task, "version": evidence.version, "place": place}
    try:
        found = look_of(request).nearest(task, evidence, place)
    except ShipError as error:
        return {**about, "nearest": [], "num_looked_at": 0, "num_training": None, "problem": str(error)}
    return {
        **about,
        "nearest": [
            {
                "path": one.path,
                "label": one.label,
                "similarity": one.similarity,
                "thumbnail": f"data:image/jpeg;base64,{base64.b64encode(one.thumbnail).decode()}",
            }
            for one in found.neighbours
        ],
        "num_looked_at": found.num_looked_at,
        "num_training": found.num_training,
        "problem": None,
    }


@router.get("/tasks/{task}/picture.jpg")
def get_thumbnail(request: Request, task: str, place: _Place, version: _Version = None) -> Response:
    """A thumbnail of a held-out picture; a drawing that says so where there is none."""
    found = look_of(request).picture(task, evidence_of(request, task, version), place)
    headers = {**_BRIEFLY, "Ship-Picture": found.state}
    if found.jpeg is None:
        return Response(_missing(found.state), media_type="image/svg+xml", headers=headers)
    return Response(found.jpeg, media_type="image/jpeg", headers=headers)


@router.get("/tasks/{task}/attention.png")
def get_attention(request: Request, task: str, place: _Place, version: _Version = None) -> Response:
    """What the class token attends to, with the prompt and on the bare backbone."""
    try:
        drawing = look_of(request).attention(task, evidence_of(request, task, version), place)
    except ServeError as error:
        raise HTTPException(503, str(error)) from error
    return Response(drawing, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


def _missing(state: str) -> bytes:
    """A square with a word: no text of others gets in here."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96" width="96" height="96" role="img">'
        f'<title>{state}</title><rect width="96" height="96" fill="#8884"/><text x="48" y="52" '
        'font-family="sans-serif" font-size="13" text-anchor="middle" fill="#777">'
        f"{state}</text></svg>"
    ).encode()


add_page(router, "/tasks/{task}/picture", "picture.html", read_picture)
add_page(router, "/tasks/{task}/nearest", "nearest.html", read_nearest)
