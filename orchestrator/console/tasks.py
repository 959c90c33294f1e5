"""What the pages of one task begin with: the task that may be seen, its versions, and the one meant."""

from typing import TYPE_CHECKING

from fastapi import HTTPException, Request

from orchestrator.console.access import person_of, services_of
from orchestrator.names import is_task_name
from orchestrator.registry.session import NotRegisteredError, RegistryMissing
from orchestrator.registry.versions import CHALLENGER, CHAMPION, VersionInfo

if TYPE_CHECKING:
    from orchestrator.console.looking import Look
    from orchestrator.registry.evidence import Evidence

__all__ = ["check_task", "choose", "evidence_of", "find_version", "look_of", "versions_of"]


def check_task(request: Request, task: str) -> None:
    """Return if the sender may see a task.

    Raises:
        HTTPException: 404.
    """
    if not is_task_name(task):
        raise HTTPException(404, f"There is no task {task[:80]!r}.")
    person_of(request).check_sees(task)


def versions_of(request: Request, task: str) -> list[VersionInfo]:
    """The versions of a task that the sender may see, newest first.

    Raises:
        HTTPException: 404, there is no such task, or it may not be seen.
        RegistryError: MLflow cannot be reached.
    """
    check_task(request, task)
    try:
        versions = services_of(request).versions(task)
    except (NotRegisteredError, RegistryMissing):
        versions = []
    if not versions:
        raise HTTPException(404, f"There is no task {task[:80]!r} that this token may see.")
    return versions


def choose(versions: list[VersionInfo], number: int | None) -> VersionInfo:
    """A version by its number; without one the champion, else the challenger, else the newest.

    Raises:
        HTTPException: 404, there is no such version.
    """
    if number is None:
        standing = (info for alias in (CHAMPION, CHALLENGER) for info in versions if alias in info.aliases)
        return next(standing, versions[0])
    found = next((info for info in versions if info.version == number), None)
    if found is None:
        raise HTTPException(404, f"There is no version {number} of this task.")
    return found


def find_version(request: Request, task: str, number: int | None) -> VersionInfo:
    """See ``versions_of`` and ``choose``."""
    return choose(versions_of(request, task), number)


def look_of(request: Request) -> "Look":
    """Held-out answers and single pictures."""
    return services_of(request).look()


def evidence_of(request: Request, task: str, number: int | None) -> "Evidence":
    """Held-out answers of a version that the sender may see.

    Raises:
        HTTPException: 404, there is no such task or version.
        RegistryError: It has none.
    """
    return look_of(request).evidence(task, find_version(request, task, number))
