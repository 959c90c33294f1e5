"""What is served: ``GET /v1/tasks`` and ``GET /v1/tasks/{task}``."""

from dataclasses import asdict
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import TaskState
from orchestrator.serve.ingress.front import Front, unknown_task
from orchestrator.serve.ingress.middleware.auth import principal_of

__all__ = ["TaskRoutes"]


class TaskRoutes:
    """The routes.

    Args:
        front: Of the engine.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def list_tasks(self, request: Request) -> Response:
        """All tasks of the catalog that whoever asks may ask, with the version that is served."""
        states = await self._front.ask(self._front.engine.tasks())
        principal = principal_of(request)
        rows = [_describe(state) for state in states if principal.may_predict(state.task)]
        for row in rows:
            # Thousands of tasks with hundreds of labels each: a task's own page has them.
            del row["labels"]
        body = {"backbone": self._front.describe_backbone(), "tasks": rows}
        return JSONResponse(body, headers=self._front.headers())

    async def show_task(self, request: Request, task: str) -> Response:
        """One task: what is served, what the catalog wants, and what is in the way."""
        state = await self._front.ask(self._front.engine.task(self._front.admit(request, task)))
        if state is None:
            raise unknown_task(f"task {task!r} is not in the catalog")
        described = _describe(state)
        del described["shadow_version"]
        shadow = self._front.shadows.describe(task, state.shadow_version)
        body = {"backbone": self._front.describe_backbone(), **described, "shadow": shadow}
        return JSONResponse(body, headers=self._front.headers())


def _describe(state: TaskState) -> dict[str, Any]:
    return {**asdict(state), "labels": list(state.labels)}
