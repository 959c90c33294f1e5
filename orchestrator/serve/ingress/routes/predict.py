"""One image, one task: ``POST /v1/predict``."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from orchestrator.serve.engine_api import Ask, Refusal
from orchestrator.serve.ingress.asking import Picture
from orchestrator.serve.ingress.bodies.form import FORM_TYPE
from orchestrator.serve.ingress.bodies.image import extract_image
from orchestrator.serve.ingress.bodies.schemas import PredictionReply
from orchestrator.serve.ingress.front import Front, answer_body, front_of
from orchestrator.serve.ingress.headers import media_type, read_wanted
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.openapi import BINARY, REPLY_HEADERS, describe, operation_id, reply
from orchestrator.serve.ingress.problems import Problem
from orchestrator.serve.ingress.request_clock import RequestClock

__all__ = ["IMAGE_BODY", "QUESTION_HEADERS", "QUESTION_PROBLEMS", "read_question", "router"]

QUESTION_HEADERS = "Ship-Task Ship-Version Ship-Key Ship-Timeout"
QUESTION_PROBLEMS = (
    "task-missing task-invalid not-allowed version-invalid key-invalid timeout-invalid header-ambiguous "
    "body-empty form-invalid body-late body-too-large image-too-large content-type-unsupported "
    "image-unsupported image-too-small image-too-costly image-corrupt task-unknown task-waiting "
    "task-retired version-not-served busy failed not-ready task-not-loaded version-changed unavailable late"
)
# A form of megabytes takes a while to parse; a thread takes longer than a small one.
_SMALL_FORM_BYTES = 64 << 10
_IMAGE_TYPES = ("jpeg", "png", "webp", "bmp", "tiff")
_FORM = {"type": "object", "properties": {"image": BINARY}, "required": ["image"]}
IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "description": "An image file, as the body or as the one part `image` of a form. Its content determines "
    "its format. It is fitted to the backbone's input by the task's view; by default it is resized without "
    "regard to its aspect ratio.",
    "content": {
        **{f"image/{name}": {"schema": BINARY} for name in _IMAGE_TYPES},
        "application/octet-stream": {"schema": BINARY},
        "multipart/form-data": {"schema": _FORM},
    },
}
router = APIRouter(tags=["predict"], generate_unique_id_function=operation_id)


@router.post(
    "/v1/predict",
    responses=reply(PredictionReply, *REPLY_HEADERS),
    openapi_extra=describe(QUESTION_PROBLEMS, headers=f"{QUESTION_HEADERS} Ship-Keep", body=IMAGE_BODY),
)
async def predict(request: Request) -> Response:
    """Ask one task about one image."""
    front = front_of(request)
    clock = front.clock(request)
    async with clock.in_time():
        ask, picture, _ = await read_question(front, request, clock)
        [found] = await front.predict([picture], [ask], clock.remaining_s)
    clock.end_stage("engine")
    if isinstance(found, Problem):
        raise found
    if isinstance(found, Refusal):
        raise front.refusal_problem(found)
    front.shadows.compare(found, picture)
    front.note_answer(request, found, picture)
    front.metrics.observe_stages(clock.stages_s)
    note(request, version=found.version, digest=found.digest)
    return JSONResponse(answer_body(found), headers=front.headers(found))


async def read_question(front: Front, request: Request, clock: RequestClock) -> tuple[Ask, Picture, bytes]:
    """The task, the decoded picture and the image file of a request; ends the stages of ``clock``.

    Raises:
        Problem: Something of it is refused.
    """
    wanted = read_wanted(request.headers)
    ask = Ask(task=front.admit(request, wanted.task), version=wanted.version, key=wanted.key)
    body = await front.read(request, front.limits.max_body_bytes)
    content = await _extract(request.headers, body)
    clock.end_stage("read")
    picture = front.picture(request, content)
    await front.decode(picture, ask)
    clock.end_stage("decode")
    return ask, picture, content


async def _extract(headers: Headers, body: bytes) -> bytes:
    if media_type(headers) == FORM_TYPE and len(body) > _SMALL_FORM_BYTES:
        return await asyncio.to_thread(extract_image, headers, body)
    return extract_image(headers, body)
