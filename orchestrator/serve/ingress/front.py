"""What all routes share: the way from a request to the engine, and the wording of what comes back."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from orchestrator.serve.engine_api import (
    Answer,
    Ask,
    Engine,
    EngineBusyError,
    EngineUnavailableError,
    Explanation,
    Image,
    Readiness,
    Refusal,
    TaskState,
)
from orchestrator.serve.ingress.bodies.image import image_problem, read_body
from orchestrator.serve.ingress.bodies.schemas import BackboneBody, PredictionReply
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.ingress.headers import TASK_HEADER, VERSION_HEADER, check_task, read_timeout
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.middleware.admission import Admission
from orchestrator.serve.ingress.middleware.auth import principal_of
from orchestrator.serve.ingress.middleware.metrics import Metrics
from orchestrator.serve.ingress.problems import Problem
from orchestrator.serve.ingress.request_clock import RequestClock
from orchestrator.serve.ingress.shadow import Shadows
from orchestrator.serve.options import Limits
from ship.backbone import BackboneInfo
from ship.errors import ImageError

__all__ = ["Front", "answer_body", "front_of"]

DIGEST_HEADER, BACKBONE_HEADER = "Ship-Digest", "Ship-Backbone"
_Reply = TypeVar("_Reply")


@dataclass(frozen=True, kw_only=True)
class Front:
    """The HTTP interface's side of an engine.

    Attributes:
        engine: That answers.
        backbone: That the engine runs; says how images are resized.
        limits: What the door lets in.
        admission: Who is let in.
        decoder: Of image files, for all routes.
        shadows: What is compared with a champion's answers.
        metrics: Where it is counted.
        stats_timeout_s: Of an engine's share of the page of metrics; Prometheus gives up after ten seconds.
    """

    engine: Engine
    backbone: BackboneInfo
    limits: Limits
    admission: Admission
    decoder: Decoder
    shadows: Shadows
    metrics: Metrics = field(default_factory=Metrics)
    stats_timeout_s: float = 1.0

    def admit(self, request: Request, task: str) -> str:
        """Return ``task`` if this request may name it: the one place that every route and item goes through.

        Raises:
            Problem: 400, it is no task name; 403, whoever asks may not ask it.
        """
        note(request, task=check_task(task))
        principal_of(request).check_may_predict(task)
        return task

    def clock(self, request: Request) -> RequestClock:
        """Starts now.

        Raises:
            Problem: 400, header Ship-Timeout is no number of seconds.
        """
        clock = RequestClock(read_timeout(request.headers, self.limits.timeout_s))
        note(request, stages_s=clock.stages_s)
        return clock

    async def read(self, request: Request, max_bytes: int) -> bytes:
        """The body.

        Raises:
            Problem: See ``door.read_body``; 400 if the client hung up.
        """
        try:
            body = await read_body(request.headers, request.stream(), max_bytes)
        except ClientDisconnect as error:
            # Nobody will read it; it keeps a hung-up client from being logged as a failure of ours.
            raise Problem("hung-up", "the body ended early") from error
        note(request, bytes_in=len(body))
        return body

    async def decode(self, content: bytes) -> Image:
        """An image file as the engine wants it; waits for its turn.

        Raises:
            Problem: 413, 415 or 422, it is refused.
        """
        try:
            return await self.decoder.decode(content)
        except ImageError as error:
            raise image_problem(error) from error

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        """What the engine replies. Tasks that it has no room for are turned away at the door for a while.

        Raises:
            Problem: See ``ask``.
        """
        replies = await self.ask(self.engine.predict(images, asks, patience_s))
        for ask, reply in zip(asks, replies, strict=True):
            if isinstance(reply, Refusal) and reply.wait_s:
                self.admission.keep_out(ask.task, reply.wait_s)
        return replies

    async def ask(self, reply: Awaitable[_Reply]) -> _Reply:
        """What the engine replies.

        Raises:
            Problem: 429 or 503, it cannot be asked now.
        """
        try:
            return await reply
        except EngineBusyError as error:
            raise self.unavailable("busy", str(error)) from error
        except EngineUnavailableError as error:
            raise self.unavailable("unavailable", str(error)) from error

    async def check_ready(self) -> Readiness:
        """Readiness of an engine that is ready.

        Raises:
            Problem: 503, it is not ready; or see ``ask``.
        """
        readiness = await self.ask(self.engine.readiness())
        if not readiness.ready:
            raise self.unavailable("not-ready", readiness.detail)
        return readiness

    async def task_state(self, request: Request, task: str) -> TaskState:
        """State of a task that the request may name.

        Raises:
            Problem: 404, the catalog has no such task; or see ``admit`` and ``ask``.
        """
        state = await self.ask(self.engine.task(self.admit(request, task)))
        if state is None:
            raise _unknown_task(f"task {task!r} is not in the catalog")
        return state

    def headers(self, found: Answer | Explanation | None = None) -> dict[str, str]:
        """Of a reply: what answered."""
        named = {BACKBONE_HEADER: self.backbone.fingerprint}
        if found is not None:
            named |= {
                TASK_HEADER: found.task,
                VERSION_HEADER: str(found.version),
                DIGEST_HEADER: found.digest,
            }
        return named

    def describe_backbone(self) -> BackboneBody:
        """Name, fingerprint and input size."""
        return {
            "name": self.backbone.name,
            "fingerprint": self.backbone.fingerprint,
            "image_size": list(self.backbone.image_size),
        }

    def refusal_problem(self, refusal: Refusal) -> Problem:
        """How a refusal of the engine is answered."""
        match refusal.reason:
            case "unknown_task":
                return _unknown_task(refusal.detail)
            case "other_version":
                return Problem("version-not-served", refusal.detail)
            case "not_loaded":
                return self.unavailable("task-not-loaded", refusal.detail)
            case "not_ready":
                return self.unavailable("not-ready", refusal.detail)
            case "busy":
                return self.unavailable("busy", refusal.detail, refusal.wait_s)
            case "late" | "failed":
                return Problem(refusal.reason, refusal.detail)

    def unavailable(self, kind: str, detail: str, wait_s: float = 0.0) -> Problem:
        """A problem with a header Retry-After of at least ``wait_s``."""
        return Problem(kind, detail, self.limits.retry_after(wait_s))


def front_of(request: Request) -> Front:
    """The front of the application that the request came to."""
    front: Front = request.app.state.front
    return front


def answer_body(answer: Answer) -> PredictionReply:
    """An answer in JSON."""
    return {
        "task": answer.task,
        "version": answer.version,
        "digest": answer.digest,
        "label": answer.probabilities[0][0],
        "probabilities": dict(answer.probabilities),
    }


def _unknown_task(detail: str) -> Problem:
    """404, with where to look."""
    return Problem("task-unknown", f"{detail}; GET /v1/tasks lists all tasks")
