"""The pages of kept pictures: which tasks have some, and one task's pictures with their labels by key."""

import logging
from collections import Counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.console.access import Person, Scope, person_of, requires, services_of
from orchestrator.console.rendering import add_page, with_query
from orchestrator.console.tasks import check_task
from orchestrator.console.tuning import check_no_run, last_words
from orchestrator.errors import ManifestError, ObjectMissing
from orchestrator.names import is_digest
from orchestrator.store.documents.audit import Author
from orchestrator.store.drift import describe, read_drift
from orchestrator.store.kept.picture_files import review_folder
from orchestrator.store.kept.pictures import REVIEWS, KeptPictures
from orchestrator.store.kept.reviews import Reviewed, Reviews, as_values
from ship.redaction import Url

__all__ = ["router"]

_log = logging.getLogger(__name__)
router = APIRouter()
State = Literal["open", "second", "settled", "left out", "all"]
_STATES: tuple[State, ...] = ("open", "second", "settled", "left out", "all")
_SIZE = 24
_REASON = "label in the console"
# What a browser shows, by the first bytes. Others are named, not shown.
_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp", b"BM": "image/bmp"}
_ALONE = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, max-age=600"}
_Picture = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]


def read_tasks(request: Request) -> dict[str, Any]:
    """Tasks of which pictures are kept, with numbers and drift."""
    services, person = services_of(request), person_of(request)
    objects = services.store.objects
    kept = Counter(one.task for one in KeptPictures(objects).files() if one.is_whole)
    looked_at = Counter(key.split("/")[1] for key in objects.list(REVIEWS))
    drifts = read_drift(objects)[0].tasks
    alarming = {task for task, entry in drifts.items() if entry.is_alarming}
    tasks = [
        {
            "task": task,
            "num_kept": kept[task],
            "num_looked_at": min(looked_at[task], kept[task]),
            "drift": drifts[task].state if task in drifts else None,
        }
        for task in sorted(alarming | set(kept), key=lambda task: (task not in alarming, task))
        if person.sees(task)
    ]
    return {"tasks": tasks}


def read_pictures(
    request: Request,
    task: str,
    state: State = "open",
    at: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    undo: str = "",
) -> dict[str, Any]:
    """The kept pictures of a task in one state, one of them to be labelled.

    Args:
        request: The request.
        task: Name of the task.
        state: State of the pictures; ``second`` are those that need a second person.
        at: Place of the one to be labelled, among them.
        undo: Picture whose label was given just now.
    """
    check_task(request, task)
    services, person = services_of(request), person_of(request)
    reviews = Reviews(services.store, services.clock)
    found = reviews.pictures(task)
    name = _name(person)
    chosen = [one for one in found if _is_in(one, state, name)]
    at = min(at, max(0, len(chosen) - 1))
    start = at - at % _SIZE
    entry = read_drift(services.store.objects)[0].tasks.get(task)
    counts = Counter(one.review.state for one in found)
    return {
        "task": task,
        "state": state,
        "states": {one: len(found) if one == "all" else counts[one] for one in _STATES},
        "num": len(chosen),
        "at": at,
        "start": start,
        "size": _SIZE,
        "labels": list(reviews.labels(task)),
        "pictures": [_shown(one, name) for one in chosen[start : start + _SIZE]],
        "undo": undo if is_digest(undo) else None,
        "drift": None if entry is None else describe(entry),
        "tunes": services.manifest is not None,
        # It names folders of this machine.
        "last_words": last_words(review_folder(services.home, task)) if person.scope >= Scope.DECIDE else "",
    }


def _is_in(one: Reviewed, state: State, name: str) -> bool:
    """Whether a picture is in a list; a person who has labelled it is no second one."""
    if state == "second":
        return one.review.state == "second" and one.review.of(name) is None
    return state in ("all", one.review.state)


def _shown(one: Reviewed, name: str) -> dict[str, Any]:
    mine = one.review.of(name)
    return {**as_values(one), "mine": None if mine is None else {"label": mine.label}}


@router.get("/review/{task}/picture")
def get_picture(request: Request, task: str, picture: _Picture) -> Response:
    """A kept picture as it was received, if browsers show pictures of its format."""
    check_task(request, task)
    try:
        content = KeptPictures(services_of(request).store.objects).fetch(task, picture)
    except ObjectMissing:
        raise HTTPException(404, "This picture is not kept.") from None
    kind = next((kind for start, kind in _TYPES.items() if content.startswith(start)), None)
    if kind is None:
        raise HTTPException(415, "Browsers show no picture of this format; `ship review export` writes it.")
    # Whatever else the file is, it is a picture and nothing that runs.
    return Response(content, media_type=kind, headers=_ALONE)


@router.post("/review/{task}/label")
def label_picture(
    request: Request,
    task: str,
    picture: Annotated[str, Form()],
    label: Annotated[str | None, Form()] = None,
    leaves_out: Annotated[bool, Form()] = False,
    state: Annotated[State, Form()] = "open",
    at: Annotated[int, Form(ge=0, le=1_000_000)] = 0,
    person: Person = Depends(requires(Scope.DECIDE)),
) -> Response:
    """Give a picture a label, or leave it out; the next one is shown after it.

    It is what ``ship review label`` does.
    """
    check_task(request, task)
    if (label is None) != leaves_out:
        raise ManifestError("label: expected one, or to leave the picture out")
    services = services_of(request)
    Reviews(services.store, services.clock).label(task, {picture: label}, _author(person))
    # Of open ones the next takes its place.
    after = at if state in ("open", "second") else at + 1
    return RedirectResponse(_url(task, state, after, undo=picture), 303)


@router.post("/review/{task}/undo")
def undo_label(
    request: Request,
    task: str,
    picture: Annotated[str, Form()],
    state: Annotated[State, Form()] = "open",
    at: Annotated[int, Form(ge=0, le=1_000_000)] = 0,
    person: Person = Depends(requires(Scope.DECIDE)),
) -> Response:
    """Take back what the person said of a picture. It is what ``ship review undo`` does."""
    check_task(request, task)
    services = services_of(request)
    Reviews(services.store, services.clock).undo(task, picture, _author(person))
    return RedirectResponse(_url(task, state, at), 303)


@router.post("/review/{task}/retune")
def retune(request: Request, task: str, person: Person = Depends(requires(Scope.DECIDE))) -> Response:
    """Tune the task anew with its settled labels, in the background, as ``ship review retune`` does."""
    # Reads data, and loads torch for it.
    from orchestrator.store.kept.retuning import prepare_retuning

    check_task(request, task)
    services = services_of(request)
    if services.manifest is None:
        raise ManifestError("this console has no manifest to tune with: `ship console --manifest FILE`")
    check_no_run(services.settings)
    reviews = Reviews(services.store, services.clock)
    settings = services.settings
    # In a file that no other user reads, not on a command line that every user does.
    store = Url(settings.store).reveal()
    folder = review_folder(services.home, task)
    found = prepare_retuning(reviews, task, services.manifest, folder, store=store)
    services.start_tuning(settings, found.manifest)
    _log.info("%s tunes task %s anew with %d pictures", person.name, task, found.exported.num_pictures)
    return RedirectResponse(_url(task, "settled", 0), 303)


@router.post("/review/{task}/drift")
def acknowledge_drift(
    request: Request,
    task: str,
    reason: Annotated[str, Form()] = "",
    accepts: Annotated[bool, Form()] = False,
    person: Person = Depends(requires(Scope.DECIDE)),
) -> Response:
    """Take note of an alarm of drift. It is what ``ship drift --acknowledge`` and ``--accept`` do."""
    from orchestrator.store.drift import acknowledge

    check_task(request, task)
    services = services_of(request)
    acknowledge(services.store, task, person.author(reason), accepts=accepts, clock=services.clock)
    return RedirectResponse(_url(task, "open", 0), 303)


def _url(task: str, state: State, at: int, undo: str | None = None) -> str:
    return with_query(f"/review/{task}/pictures", {"state": state, "at": at or None, "undo": undo})


def _author(person: Person) -> Author:
    return person.author(_REASON)


def _name(person: Person) -> str:
    return _author(person).by


add_page(router, "/review", "review.html", read_tasks)
add_page(router, "/review/{task}/pictures", "review_pictures.html", read_pictures)
