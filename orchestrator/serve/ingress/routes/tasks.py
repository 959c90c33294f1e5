"""Tasks of the endpoint: ``GET /v1/tasks`` and ``GET /v1/tasks/{task}``."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import ServingState
from orchestrator.serve.ingress.bodies.schemas import TaskListReply, TaskReply
from orchestrator.serve.ingress.front import front_of
from orchestrator.serve.ingress.middleware.auth import principal_of
from orchestrator.serve.ingress.openapi import describe, operation_id, reply

__all__ = ["router"]

router = APIRouter(tags=["tasks"], generate_unique_id_function=operation_id)


@router.get(
    "/v1/tasks",
    responses=reply(TaskListReply, "Ship-Backbone"),
    openapi_extra=describe("busy unavailable"),
)
async def list_tasks(request: Request) -> Response:
    """List the tasks that the token has access to, with the versions that are served."""
    front, principal = front_of(request), principal_of(request)
    states = await front.ask(front.engine.tasks())
    rows = [_describe(state) for state in states if principal.may_predict(state.task)]
    for row in rows:
        # Thousands of tasks with hundreds of labels each: a task's own page has them.
        del row["labels"], row["view"]
    body = {"backbone": front.describe_backbone(), "tasks": rows}
    return JSONResponse(body, headers=front.headers())


@router.get(
    "/v1/tasks/{task}",
    responses=reply(TaskReply, "Ship-Backbone"),
    openapi_extra=describe("task-invalid not-allowed task-unknown busy unavailable"),
)
async def show_task(request: Request, task: str) -> Response:
    """Show one task: its labels, the version that is served, and the version that the registry names."""
    front = front_of(request)
    state = await front.task_state(request, task)
    described = _describe(state)
    del described["shadow_version"]
    shadow = front.shadows.describe(task, state.shadow_version)
    body = {"backbone": front.describe_backbone(), **described, "shadow": shadow}
    return JSONResponse(body, headers=front.headers())


def _describe(state: ServingState) -> dict[str, Any]:
    view = None if state.view is None else state.view.to_dict()
    return {**asdict(state), "labels": list(state.labels), "view": view}
