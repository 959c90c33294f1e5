"""The HTTP interface. It owns routes, headers and the wording of replies; an ``Engine`` does the answering.

It knows no Ray: tests run it on a fake engine.
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from orchestrator.serve.door import (
    TASK_HEADER,
    VERSION_HEADER,
    check_task,
    extract_image,
    image_problem,
    read_body,
    read_wanted,
)
from orchestrator.serve.drain import Drain, DrainGate
from orchestrator.serve.engine_api import (
    Answer,
    Ask,
    Engine,
    EngineBusyError,
    EngineUnavailableError,
    Image,
    Refusal,
    TaskState,
)
from orchestrator.serve.metrics import CONTENT_TYPE, CountRequests, Metrics
from orchestrator.serve.options import Limits
from orchestrator.serve.problems import Problem, install_problem_handlers
from orchestrator.serve.shadow import Shadows
from ship.backbone import BackboneInfo
from ship.errors import ImageError
from ship.images import decode_image

__all__ = ["BACKBONE_HEADER", "DIGEST_HEADER", "make_app"]

DIGEST_HEADER, BACKBONE_HEADER = "Ship-Digest", "Ship-Backbone"
_Reply = TypeVar("_Reply")


def make_app(
    engine: Engine, backbone: BackboneInfo, limits: Limits | None = None, drain: Drain | None = None
) -> FastAPI:
    """The ASGI application.

    Args:
        engine: That answers.
        backbone: That the engine runs; says how images are resized.
        limits: What the door lets in.
        drain: Closes it.
    """
    front = _Front(engine, backbone, limits or Limits())
    # The documentation pages would load their scripts from a foreign host.
    app = FastAPI(title="SHIP", docs_url=None, redoc_url=None)
    app.post("/v1/predict")(front.predict)
    app.get("/v1/tasks")(front.list_tasks)
    app.get("/v1/tasks/{task}")(front.show_task)
    app.get("/healthz")(front.healthz)
    app.get("/readyz")(front.readyz)
    app.get("/metrics")(front.show_metrics)
    app.add_middleware(DrainGate, drain=drain or Drain())
    app.add_middleware(CountRequests, metrics=front.metrics)
    install_problem_handlers(app)
    return app


class _Front:
    """The routes."""

    def __init__(self, engine: Engine, backbone: BackboneInfo, limits: Limits) -> None:
        self._engine = engine
        self._backbone = backbone
        self._limits = limits
        self._shadows = Shadows(engine)
        self.metrics = Metrics()

    async def predict(self, request: Request) -> Response:
        """Ask the task in header Ship-Task about the image in the body."""
        wanted = read_wanted(request.headers)
        start_s = time.perf_counter()
        content = await self._read_image(request)
        read_s = time.perf_counter()
        image_3HW = await asyncio.to_thread(self._decode, content)
        decoded_s = time.perf_counter()
        ask = Ask(task=wanted.task, version=wanted.version)
        (reply,) = await self._ask(self._engine.predict([image_3HW], [ask], self._limits.timeout_s))
        if isinstance(reply, Refusal):
            raise self._refusal_problem(reply)
        stages_s = {
            "read": read_s - start_s,
            "decode": decoded_s - read_s,
            "engine": time.perf_counter() - decoded_s,
        }
        self.metrics.observe_answer(reply, stages_s)
        self._shadows.compare(reply, image_3HW)
        return self._answer_response(reply)

    async def list_tasks(self) -> Response:
        """All tasks of the catalog, with the version that is served."""
        states = await self._ask(self._engine.tasks())
        rows = [_describe(state) for state in states]
        for row in rows:
            # Thousands of tasks with hundreds of labels each: a task's own page has them.
            del row["labels"]
        return JSONResponse({"backbone": self._describe_backbone(), "tasks": rows}, headers=self._headers())

    async def show_task(self, task: str) -> Response:
        """One task: what is served, what the catalog wants, and what is in the way."""
        state = await self._ask(self._engine.task(check_task(task)))
        if state is None:
            raise _unknown_task(f"task {task!r} is not in the catalog")
        return JSONResponse(
            {"backbone": self._describe_backbone(), **self._describe_whole(state)}, headers=self._headers()
        )

    async def healthz(self) -> Response:
        """Whether this process runs."""
        return JSONResponse({"status": "ok"})

    async def readyz(self) -> Response:
        """Whether requests can be answered: a catalog was loaded once."""
        readiness = await self._ask(self._engine.readiness())
        if not readiness.ready:
            raise self._unavailable("not-ready", "Not ready yet", readiness.detail)
        return JSONResponse({"status": "ready", **asdict(readiness)})

    async def show_metrics(self) -> Response:
        """Counters in Prometheus' text format."""
        return Response(self.metrics.render(), media_type=CONTENT_TYPE)

    async def _read_image(self, request: Request) -> bytes:
        try:
            body = await read_body(request.headers, request.stream(), self._limits)
        except ClientDisconnect as error:
            # Nobody will read it; it keeps a hung-up client from being logged as a failure of ours.
            raise Problem(400, "hung-up", "The client hung up", "the body ended early") from error
        return await extract_image(request.headers, body)

    def _decode(self, content: bytes) -> Image:
        try:
            decoded_3HW = decode_image(
                content,
                size=self._backbone.image_size,
                interpolation=self._backbone.interpolation,
                max_pixels=self._limits.max_pixels,
                formats=self._limits.formats,
            )
        except ImageError as error:
            raise image_problem(error) from error
        image_3HW: Image = decoded_3HW.numpy()
        return image_3HW

    async def _ask(self, reply: Awaitable[_Reply]) -> _Reply:
        retry_after = self._retry_after()
        try:
            return await reply
        except EngineBusyError as error:
            raise Problem(429, "busy", "Too many requests", str(error), retry_after) from error
        except EngineUnavailableError as error:
            raise Problem(503, "unavailable", "No engine answers", str(error), retry_after) from error

    def _answer_response(self, answer: Answer) -> Response:
        headers = {
            TASK_HEADER: answer.task,
            VERSION_HEADER: str(answer.version),
            DIGEST_HEADER: answer.digest,
            **self._headers(),
        }
        label = answer.probabilities[0][0]
        content = {
            "task": answer.task,
            "version": answer.version,
            "digest": answer.digest,
            "label": label,
            "probabilities": dict(answer.probabilities),
        }
        return JSONResponse(content, headers=headers)

    def _describe_whole(self, state: TaskState) -> dict[str, Any]:
        described = _describe(state)
        del described["shadow_version"]
        return {**described, "shadow": self._shadows.describe(state.task, state.shadow_version)}

    def _headers(self) -> dict[str, str]:
        return {BACKBONE_HEADER: self._backbone.fingerprint}

    def _describe_backbone(self) -> dict[str, Any]:
        return {
            "name": self._backbone.name,
            "fingerprint": self._backbone.fingerprint,
            "image_size": list(self._backbone.image_size),
        }

    def _refusal_problem(self, refusal: Refusal) -> Problem:
        match refusal.reason:
            case "unknown_task":
                return _unknown_task(refusal.detail)
            case "other_version":
                return Problem(404, "version-not-served", "That version is not served", refusal.detail)
            case "not_loaded":
                return self._unavailable("task-not-loaded", "The task is not served now", refusal.detail)
            case "not_ready":
                return self._unavailable("not-ready", "Not ready yet", refusal.detail)
            case "busy":
                return Problem(429, "busy", "Too many requests", refusal.detail, self._retry_after())
            case "late":
                return Problem(504, "late", "Not in time", refusal.detail)
            case "failed":
                return Problem(500, "failed", "The task failed to answer", refusal.detail)

    def _unavailable(self, kind: str, title: str, detail: str) -> Problem:
        return Problem(503, kind, title, detail, self._retry_after())

    def _retry_after(self) -> dict[str, str]:
        return {"Retry-After": str(self._limits.retry_after_s)}


def _unknown_task(detail: str) -> Problem:
    return Problem(404, "task-unknown", "Unknown task", f"{detail}; GET /v1/tasks lists all tasks")


def _describe(state: TaskState) -> dict[str, Any]:
    return {**asdict(state), "labels": list(state.labels)}
