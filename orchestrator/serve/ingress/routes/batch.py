"""Many images, many tasks: ``POST /v1/predict:batch``.

Each image is decoded once for each view, however many items are about it; what fails, fails alone.
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import Answer, Ask, Image, Refusal
from orchestrator.serve.ingress.asking import Picture
from orchestrator.serve.ingress.bodies.batch_request import BatchItem, read_batch
from orchestrator.serve.ingress.bodies.image import image_too_large
from orchestrator.serve.ingress.bodies.schemas import BatchReply, ItemErrorReply, ItemReply
from orchestrator.serve.ingress.front import Front, answer_body, front_of
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.openapi import BINARY, describe, operation_id, reply
from orchestrator.serve.ingress.paths import BATCH_PATH
from orchestrator.serve.ingress.problems import Problem
from ship.settings.view import View

__all__ = ["router"]

_ITEMS = [
    {"image": "cap", "task": "bolts", "version": 2, "key": "line 7"},
    {"image": "cap", "task": "nuts"},
]
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"request": {"$ref": "#/components/schemas/BatchBody"}},
        "additionalProperties": BINARY,
    },
    "encoding": {"request": {"contentType": "application/json"}},
    "example": {"request": {"items": _ITEMS}, "cap": "(bytes of an image file)"},
}
_BODY: dict[str, Any] = {"required": True, "content": {"multipart/form-data": _FORM}}
router = APIRouter(tags=["predict"], generate_unique_id_function=operation_id)


@router.post(
    BATCH_PATH,
    responses=reply(BatchReply, "Ship-Backbone"),
    openapi_extra=describe(
        "task-missing version-invalid key-invalid timeout-invalid header-ambiguous body-empty form-invalid "
        "json-invalid body-late body-too-large batch-too-large content-type-unsupported busy unavailable "
        "late",
        headers="Ship-Task? Ship-Version Ship-Key Ship-Timeout Ship-Keep",
        body=_BODY,
    ),
)
async def predict_batch(request: Request) -> Response:
    """Ask any tasks about any images.

    A form with a part `request`, whose items name a task and the part that holds the image; or images alone,
    and the header Ship-Task for all of them. Beside a part `request` the headers Ship-Task, Ship-Version and
    Ship-Key are refused: its items have their own. Each image is decoded once for each view of the tasks. An
    item that is refused has the problem in `error` and stops no other item: the status is 200 then.
    """
    front = front_of(request)
    clock = front.clock(request)
    async with clock.in_time():
        body = await front.read(request, front.limits.max_batch_bytes)
        batch = await asyncio.to_thread(read_batch, request.headers, body, front.limits)
        del body
        clock.end_stage("read")
        admitted = [_admit(front, request, item) for item in batch.items]
        note(request, task=None, items=len(batch.items))
        asked = [item for item, problem in zip(batch.items, admitted, strict=True) if problem is None]
        names = list(dict.fromkeys(item.image for item in asked))
        pictures = [_picture(front, request, batch.images[name]) for name in names]
        asks = [
            Ask(task=item.task, version=item.version, key=item.key, image=names.index(item.image))
            for item in asked
        ]
        await front.asker.prepare(pictures, asks)
        clock.end_stage("decode")
        answers = iter(await front.predict(pictures, asks, clock.remaining_s))
    clock.end_stage("engine")
    front.metrics.observe_stages(clock.stages_s)
    of_image = dict(zip(names, pictures, strict=True))
    rows = [
        _describe(front, request, item, problem or next(answers), of_image.get(item.image))
        for item, problem in zip(batch.items, admitted, strict=True)
    ]
    return JSONResponse({"items": rows}, headers=front.headers())


def _admit(front: Front, request: Request, item: BatchItem) -> Problem | None:
    try:
        front.admit(request, item.task)
    except Problem as problem:
        return problem
    return None


def _picture(front: Front, request: Request, content: bytes) -> Picture:
    if len(content) <= front.limits.max_body_bytes:
        return front.picture(request, content)

    async def refuse(view: View, backbone: str) -> Image:
        raise image_too_large(front.limits.max_body_bytes)

    return Picture(refuse)


def _describe(
    front: Front,
    request: Request,
    item: BatchItem,
    found: Answer | Refusal | Problem,
    picture: Picture | None,
) -> ItemReply | ItemErrorReply:
    if isinstance(found, Answer):
        assert picture is not None, "it was asked about"
        front.note_answer(request, found, picture)
        row: ItemReply = {"image": item.image, **answer_body(found)}
        return row
    problem = front.refusal_problem(found) if isinstance(found, Refusal) else found
    return {"image": item.image, "task": item.task, "error": problem.document()}
