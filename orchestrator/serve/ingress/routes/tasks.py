"""Tasks of the endpoint: ``GET /v1/tasks`` and ``GET /v1/tasks/{task}``."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import ServingState, TaskPage
from orchestrator.serve.ingress.bodies.schemas import TaskListReply, TaskReply
from orchestrator.serve.ingress.front import front_of
from orchestrator.serve.ingress.headers import read_page
from orchestrator.serve.ingress.middleware.auth import principal_of
from orchestrator.serve.ingress.openapi import describe, operation_id, reply

__all__ = ["router"]

router = APIRouter(tags=["tasks"], generate_unique_id_function=operation_id)


@router.get(
    "/v1/tasks",
    responses=reply(TaskListReply, "Ship-Backbone"),
    openapi_extra=describe("page-invalid busy unavailable", query="limit cursor"),
)
async def list_tasks(request: Request) -> Response:
    """List the tasks that the token has access to, with the versions that are served.

    In the order of their names, a page at a time: `next_cursor` is the `cursor` of the next page.
    """
    front = front_of(request)
    cursor, limit = read_page(request.query_params)
    # One more than wanted says whether there is a next page.
    page = TaskPage(patterns=principal_of(request).task_patterns, after=cursor, limit=limit + 1)
    states = await front.ask(front.engine.tasks(page))
    rows = [_describe(state) for state in states[:limit]]
    for row, state in zip(rows, states, strict=False):
        # A task's own page has them.
        del row["labels"], row["view"]
        row["backbone"] = state.backbone or front.backbone().fingerprint
    following = states[limit - 1].task if len(states) > limit else None
    body = {
        "backbone": front.describe_backbone(),
        "backbones": [front.describe_backbone(fingerprint) for fingerprint in front.backbones],
        "tasks": rows,
        "next_cursor": following,
    }
    return JSONResponse(body, headers=front.headers())


@router.get(
    "/v1/tasks/{task}",
    responses=reply(TaskReply, "Ship-Backbone"),
    openapi_extra=describe(
        "task-invalid not-allowed task-unknown task-waiting task-retired busy unavailable"
    ),
)
async def show_task(request: Request, task: str) -> Response:
    """Show one task: its labels, the version that is served, and the version that the registry names."""
    front = front_of(request)
    state = await front.task_state(request, task)
    described = _describe(state)
    del described["shadow_version"]
    shadow = front.shadows.describe(task, state.shadow_version)
    body = {**described, "backbone": front.describe_backbone(state.backbone), "shadow": shadow}
    return JSONResponse(body, headers=front.headers(state))


def _describe(state: ServingState) -> dict[str, Any]:
    view = None if state.view is None else state.view.to_dict()
    canary = None if state.canary is None else asdict(state.canary)
    # Not ``asdict`` of it all, which copies: a page has hundreds.
    return {**vars(state), "labels": list(state.labels), "view": view, "canary": canary}
