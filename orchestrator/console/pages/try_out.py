"""The page Try: a picture and some tasks, and what the endpoint answers."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from orchestrator.console.access import person_of, services_of
from orchestrator.console.rendering import add_page, plain, render
from orchestrator.console.trying import ask_task, commands_for
from orchestrator.errors import ManifestError, ServeError

__all__ = ["router"]

MAX_TASKS = 8

router = APIRouter()


def read_try(request: Request, task: Annotated[list[str] | None, Query()] = None) -> dict[str, Any]:
    """The tasks that may be asked, and those that the URL chooses."""
    person, services = person_of(request), services_of(request)
    names = [one.task for one in services.tasks() if person.sees(one.task) and not one.is_retired]
    return {
        "endpoint": None if services.endpoint is None else str(services.endpoint.url),
        "tasks": names,
        "chosen": [name for name in task or () if name in names],
        "max_tasks": MAX_TASKS,
        "asked": None,
    }


def ask(
    request: Request,
    picture: Annotated[UploadFile, File()],
    task: Annotated[list[str] | None, Form()] = None,
    version: Annotated[str, Form(pattern=r"^\d{0,9}$")] = "",
    attention: Annotated[bool, Form()] = False,
) -> dict[str, Any]:
    """Ask each task about the picture.

    Raises:
        ManifestError: No picture or no task was chosen, or too many tasks.
        ServeError: This console has no endpoint.
        HTTPException: 404, a task that the sender may not see.
    """
    person, services = person_of(request), services_of(request)
    client, tasks = services.endpoint, list(dict.fromkeys(task or ()))
    for name in tasks:
        person.check_sees(name)
    if client is None:
        raise ServeError("this console was given no endpoint: start it with --endpoint URL")
    if not 1 <= len(tasks) <= MAX_TASKS:
        raise ManifestError(f"expected 1 to {MAX_TASKS} tasks to ask, found {len(tasks)}")
    content, name = picture.file.read(), picture.filename or ""
    if not content:
        raise ManifestError("expected a picture, found no file or an empty one: choose one first")
    wanted = int(version) if version else None
    answers = [
        {
            **ask_task(
                client, one, content, version=wanted, explains=attention, monotonic=services.monotonic
            ),
            "commands": commands_for(str(client.url), one, name, wanted),
        }
        for one in tasks
    ]
    return {"picture": name, "num_bytes": len(content), "answers": answers}


add_page(router, "/try", "try.html", read_try)
_Asked = Annotated[dict[str, Any], Depends(ask)]


@router.post("/try.json")
def ask_json(asked: _Asked) -> Response:
    """The answers as JSON."""
    return JSONResponse(plain(asked))


@router.post("/try")
def show_answers(request: Request, asked: _Asked) -> Response:
    """The answers: to a script only them, else on the whole page."""
    if request.headers.get("hx-request"):
        return render(request, "try_answers.html", {"asked": asked})
    chosen = [one["task"] for one in asked["answers"]]
    return render(request, "try.html", {**read_try(request, chosen), "asked": asked})
