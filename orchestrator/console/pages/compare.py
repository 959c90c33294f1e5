"""The page that compares two versions on the same pictures, and where one is promoted or withheld."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.console.access import Person, Scope, requires, services_of
from orchestrator.console.rendering import add_page, with_query
from orchestrator.console.tasks import check_task, choose, look_of, versions_of
from orchestrator.errors import ManifestError, RegistryError, StoreError
from orchestrator.registry.plain_values import pending_json, version_json
from orchestrator.registry.versions import CHALLENGER, CHAMPION, VersionInfo

__all__ = ["router"]

NUM_SHOWN, MAX_SHOWN = 48, 500
_Version = Annotated[int | None, Query(ge=1, le=1_000_000)]
_LISTS = ("fixed", "broken", "both_wrong")
router = APIRouter()


def read_comparison(
    request: Request,
    task: str,
    a: _Version = None,
    b: _Version = None,
    limit: Annotated[int, Query(ge=1, le=MAX_SHOWN)] = NUM_SHOWN,
) -> dict[str, Any]:
    """What version ``b`` fixes and breaks of ``a`` on the pictures that both were measured on.

    Args:
        request: The request.
        task: Name of the task.
        a: A version; None for the champion.
        b: Another one; None for the challenger, else for the newest that is not ``a``.
        limit: Pictures of each list to show.
    """
    from orchestrator.registry.comparison import compare_versions

    versions = versions_of(request, task)
    first = choose(versions, a)
    second = _other(versions, first) if b is None else choose(versions, b)
    services = services_of(request)
    stored = services.store.read_rollout(task)
    rollout = None if stored is None else stored[0]
    about = {
        "task": task,
        "versions": [one.version for one in versions],
        "a": version_json(first),
        "b": version_json(second),
        "pending": pending_json(rollout),
        "limit": limit,
    }
    look = look_of(request)
    try:
        found = compare_versions(task, look.evidence(task, first), look.evidence(task, second))
    except (RegistryError, StoreError) as error:
        return {**about, "comparison": None, "problem": str(error)}
    shown = {name: found[name][:limit] for name in _LISTS}
    return {**about, "comparison": {**found, **shown}, "problem": None}


def _other(versions: list[VersionInfo], first: VersionInfo) -> VersionInfo:
    """The version that is worth a comparison: the challenger, else the newest one beside the first."""
    others = [one for one in versions if one.version != first.version]
    waiting = [one for one in others if CHALLENGER in one.aliases] or [
        one for one in others if CHAMPION in one.aliases
    ]
    return next(iter([*waiting, *others]), first)


@router.post("/tasks/{task}/promote")
def promote(
    request: Request,
    task: str,
    version: Annotated[int, Form(ge=1)],
    reason: Annotated[str, Form()] = "",
    force: Annotated[bool, Form()] = False,
    back: Annotated[str, Form()] = "",
    person: Person = Depends(requires(Scope.DECIDE)),
) -> Response:
    """Serve a version from now on, or ask for it where the task needs an approval: ``ship promote``.

    Args:
        request: The request.
        task: Name of the task.
        version: The version.
        reason: Why.
        force: Also if the gate refused it.
        back: The two versions of the page to go back to, as in ``1-2``.
        person: Who decides.
    """
    from orchestrator.registry.catalog_writer import serve_now

    check_task(request, task)
    services = services_of(request)
    services.rollouts(person.author(reason)).promote(task, version, force=force)
    serve_now(services.store, task)
    return _go_back(task, back)


@router.post("/tasks/{task}/decide")
def decide(
    request: Request,
    task: str,
    decision: Annotated[str, Form()],
    reason: Annotated[str, Form()] = "",
    version: Annotated[int | None, Form(ge=1)] = None,
    back: Annotated[str, Form()] = "",
    person: Person = Depends(requires(Scope.DECIDE)),
) -> Response:
    """Withhold a version, or approve or reject the promotion that waits.

    Args:
        request: The request.
        task: Name of the task.
        decision: ``withhold``, ``approve`` or ``reject``.
        reason: Why.
        version: The version that is withheld, or that the page showed as waiting.
        back: See ``promote``.
        person: Who decides.
    """
    from orchestrator.registry.catalog_writer import serve_now

    check_task(request, task)
    services = services_of(request)
    requests = services.requests(person.author(reason))
    if decision == "withhold" and version is not None:
        requests.withhold(task, version)
    elif decision in ("approve", "reject"):
        (requests.approve if decision == "approve" else requests.reject)(task, version)
    else:
        raise ManifestError("decision: expected withhold with a version, approve or reject")
    serve_now(services.store, task)
    return _go_back(task, back)


def _go_back(task: str, back: str) -> Response:
    first, _, second = back.partition("-")
    if first.isdecimal() and second.isdecimal():
        return RedirectResponse(with_query(f"/tasks/{task}/compare", {"a": first, "b": second}), 303)
    return RedirectResponse(f"/tasks/{task}/about", 303)


add_page(router, "/tasks/{task}/compare", "compare.html", read_comparison)
