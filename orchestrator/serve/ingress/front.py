"""Shared steps of all routes: from a request to the engine, and from its reply to a response."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
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
    ServingState,
)
from orchestrator.serve.ingress.asking import Asker, Picture
from orchestrator.serve.ingress.bodies.image import image_problem, read_body
from orchestrator.serve.ingress.bodies.schemas import RULE_CHARS, BackboneBody, PredictionReply
from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.ingress.headers import (
    TASK_HEADER,
    VERSION_HEADER,
    check_task,
    may_keep,
    read_timeout,
)
from orchestrator.serve.ingress.keeping import Keeper
from orchestrator.serve.ingress.looks import Looks
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.middleware.admission import Admission
from orchestrator.serve.ingress.middleware.auth import principal_of
from orchestrator.serve.ingress.middleware.metrics import Metrics
from orchestrator.serve.ingress.problems import Problem
from orchestrator.serve.ingress.recent import Recent
from orchestrator.serve.ingress.request_clock import RequestClock
from orchestrator.serve.ingress.shadow import Shadows
from orchestrator.serve.ingress.sightings import Sightings
from orchestrator.serve.options import Limits
from orchestrator.tracing import span
from ship.backbone_info import BackboneInfo
from ship.errors import ImageError
from ship.settings.view import View

__all__ = ["Front", "answer_body", "front_of", "in_turn", "short_rule"]

DIGEST_HEADER, BACKBONE_HEADER, PRECISION_HEADER = "Ship-Digest", "Ship-Backbone", "Ship-Precision"
_Reply = TypeVar("_Reply")


@dataclass(frozen=True, kw_only=True)
class Front:
    """The HTTP interface's side of an engine.

    Attributes:
        engine: Engine that answers.
        asker: Asks it about pictures.
        backbones: Backbones that answer, by fingerprint; the first one is asked about tasks that are not
            known yet.
        limits: Limits on requests.
        admission: Admission control.
        decoder: Decoder of image files, shared by all routes.
        shadows: Comparisons of champions with their shadows.
        metrics: Metrics of this process.
        sightings: Hands answers on to the watch for drift.
        keeper: Keeps pictures; None if none are kept.
        looks: Ages of the last looks at registry and tokens.
        readiness: Readiness of an engine; probes need no token.
        metrics_page: Page of the metrics.
    """

    engine: Engine
    asker: Asker
    backbones: Mapping[str, BackboneInfo]
    limits: Limits
    admission: Admission
    decoder: Decoder
    shadows: Shadows
    metrics: Metrics
    sightings: Sightings
    keeper: Keeper | None
    looks: Looks
    readiness: Recent[Readiness]
    metrics_page: Recent[bytes]

    def admit(self, request: Request, task: str) -> str:
        """Return ``task`` if the request has access to it: all routes and all items of a batch check it here.

        Raises:
            Problem: 400, invalid task name; 403, the token has no access to the task.
        """
        note(request, task=check_task(task))
        principal_of(request).check_may_predict(task)
        return task

    def clock(self, request: Request) -> RequestClock:
        """Clock of a request, which starts now.

        Raises:
            Problem: 400, header Ship-Timeout is not a number of seconds.
        """
        clock = RequestClock(read_timeout(request.headers, self.limits.timeout_s))
        note(request, stages_s=clock.stages_s)
        return clock

    async def read(self, request: Request, max_bytes: int) -> bytes:
        """Read the body of a request.

        Raises:
            Problem: See ``read_body``; 400, the client disconnected.
        """
        try:
            body = await read_body(request.headers, request.stream(), max_bytes)
        except ClientDisconnect as error:
            # No client reads this problem; it keeps a disconnect from being logged as a failure of the
            # server.
            raise Problem("hung-up", "the body ended early") from error
        note(request, bytes_in=len(body))
        return body

    def picture(self, request: Request, content: bytes) -> Picture:
        """An image file, decoded when it is the account's turn; refused with 413, 415 or 422."""
        account = principal_of(request).account

        async def decode(view: View, backbone: str) -> Image:
            own = self.backbone(backbone)
            with span("decode", {"ship.bytes": len(content)}):
                return await in_turn(self.decoder.decode(content, view, account=account, backbone=own))

        return Picture(decode, content)

    def raw_picture(self, request: Request, pixels_3HW: Image) -> Picture:
        """Pixels, which are fitted as those of a file are; refused with 422."""
        account = principal_of(request).account

        async def fit(view: View, backbone: str) -> Image:
            with span("decode", {"ship.bytes": pixels_3HW.nbytes}):
                return await in_turn(self.decoder.fit(pixels_3HW, view, account, self.backbone(backbone)))

        return Picture(fit, pixels_3HW)

    async def decode(self, picture: Picture, ask: Ask) -> Image:
        """Decode a picture by the view that the task is known to have, or by one that asks for its view.

        Raises:
            Problem: The image is refused.
        """
        found = await self.asker.decode(picture, ask)
        if isinstance(found, Problem):
            raise found
        return found

    async def predict(
        self, pictures: Sequence[Picture], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal | Problem]:
        """Ask the engine; admission control refuses a task for a while that the engine has no room for.

        Raises:
            Problem: See ``ask``.
        """
        replies = await self.ask(self.asker.predict(pictures, asks, patience_s))
        for ask, reply in zip(asks, replies, strict=True):
            if isinstance(reply, Refusal) and reply.wait_s:
                self.admission.keep_out(ask.task, reply.wait_s)
            if isinstance(reply, Answer):
                self.admission.note_task(ask.task, exists=True)
            elif isinstance(reply, Refusal) and reply.reason == "unknown_task":
                self.admission.note_task(ask.task, exists=False)
        return replies

    def note_answer(self, request: Request, answer: Answer, picture: Picture) -> None:
        """Count an answer, watch it for drift, and keep its picture if that is to be."""
        self.metrics.observe_answer(answer)
        self.sightings.note(answer)
        if self.keeper is not None and may_keep(request.headers):
            self.keeper.offer(answer, picture.file)

    async def ask(self, reply: Awaitable[_Reply]) -> _Reply:
        """Reply of the engine.

        Raises:
            Problem: 429, the engine is busy; 503, no engine is available.
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
        readiness = await self.ask(self.readiness.get())
        if not readiness.ready:
            raise self.unavailable("not-ready", readiness.detail)
        return readiness

    async def task_state(self, request: Request, task: str) -> ServingState:
        """State of a task that the request may name.

        Raises:
            Problem: 404, there is no such task, or no version of it serves; 410, it was retired; or see
                ``admit`` and ``ask``.
        """
        state = await self.ask(self.engine.task(self.admit(request, task)))
        if state is None:
            raise _unknown_task(f"task {task!r} is not in the catalog")
        if isinstance(state, Refusal):
            raise self.refusal_problem(state)
        return state

    def backbone(self, fingerprint: str = "") -> BackboneInfo:
        """The backbone of that fingerprint; the first one if it is empty, as it is at an endpoint of one."""
        return self.backbones[fingerprint or next(iter(self.backbones))]

    def headers(self, found: Answer | Explanation | ServingState | None = None) -> dict[str, str]:
        """Headers of a reply: backbone, and the task, version, digest and precision that answered.

        A reply about no single task names all backbones, the first one first.
        """
        asked = list(self.backbones) if found is None else [self._served(found.backbone).fingerprint]
        named = {BACKBONE_HEADER: ", ".join(asked)}
        if isinstance(found, Answer | Explanation):
            named |= {
                TASK_HEADER: found.task,
                VERSION_HEADER: str(found.version),
                DIGEST_HEADER: found.digest,
                PRECISION_HEADER: found.precision,
            }
        return named

    def describe_backbone(self, fingerprint: str = "") -> BackboneBody:
        """Name, fingerprint and input size."""
        backbone = self._served(fingerprint)
        return {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "image_size": list(backbone.image_size),
        }

    def _served(self, fingerprint: str) -> BackboneInfo:
        """The backbone; the first one in place of one that is not served."""
        return self.backbone(fingerprint if fingerprint in self.backbones else "")

    def refusal_problem(self, refusal: Refusal) -> Problem:
        """Problem for a refusal of the engine."""
        match refusal.reason:
            case "unknown_task":
                return _unknown_task(refusal.detail)
            case "no_champion":
                return Problem("task-waiting", refusal.detail)
            case "retired":
                return Problem("task-retired", refusal.detail)
            case "other_version":
                return Problem("version-not-served", refusal.detail)
            case "not_loaded":
                return self.unavailable("task-not-loaded", refusal.detail)
            case "not_ready":
                return self.unavailable("not-ready", refusal.detail)
            case "busy" | "unavailable":
                return self.unavailable(refusal.reason, refusal.detail, refusal.wait_s)
            case "other_view" | "other_backbone" | "no_key":
                detail = "the task's version changed while the request was answered; send it again"
                return self.unavailable("version-changed", detail)
            case "late":
                return Problem("late", refusal.detail)
            # Also a reason that an engine of the version after this one gives.
            case _:
                return Problem("failed", refusal.detail)

    def unavailable(self, kind: str, detail: str, wait_s: float = 0.0) -> Problem:
        """A problem with a header Retry-After of at least ``wait_s``."""
        return Problem(kind, detail, self.limits.retry_after(wait_s))


def front_of(request: Request) -> Front:
    """The front of the application that the request came to."""
    front: Front = request.app.state.front
    return front


def answer_body(answer: Answer) -> PredictionReply:
    """JSON body of an answer."""
    body: PredictionReply = {
        "task": answer.task,
        "version": answer.version,
        "digest": answer.digest,
        "rule": short_rule(answer.rule),
        "label": answer.probabilities[0][0],
        "decision": answer.decision,
        "probabilities": dict(answer.probabilities),
    }
    if answer.because is not None:
        body["decision_because"] = answer.because
    if answer.backbone:
        body["backbone"] = answer.backbone
    return body


def short_rule(digest: str | None) -> str | None:
    """The start of a decision rule's digest, which tells rules apart in replies."""
    return None if digest is None else digest[:RULE_CHARS]


async def in_turn(decoded: Awaitable[_Reply]) -> _Reply:
    """What the decoder returns; its refusal as a problem."""
    try:
        return await decoded
    except ImageError as error:
        raise image_problem(error) from error


def _unknown_task(detail: str) -> Problem:
    """Problem of a task that the catalog does not have."""
    return Problem("task-unknown", f"{detail}; GET /v1/tasks lists all tasks")
