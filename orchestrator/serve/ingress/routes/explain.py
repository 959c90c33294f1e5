"""Attention maps of a task for one image: ``POST /v1/explain``."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import Explanation, Image, Refusal
from orchestrator.serve.ingress.asking import Picture
from orchestrator.serve.ingress.bodies.schemas import ExplanationReply
from orchestrator.serve.ingress.front import Front, front_of, in_turn
from orchestrator.serve.ingress.headers import read_accepted
from orchestrator.serve.ingress.heat_map import draw_explanation
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.middleware.auth import principal_of
from orchestrator.serve.ingress.openapi import BINARY, REPLY_HEADERS, describe, operation_id, reply
from orchestrator.serve.ingress.problems import Problem
from orchestrator.serve.ingress.routes.predict import (
    IMAGE_BODY,
    QUESTION_HEADERS,
    QUESTION_PROBLEMS,
    read_question,
)
from orchestrator.serve.ingress.tiled_map import Map, lay_back
from ship.settings.view import View

__all__ = ["router"]

_PNG, _JSON = "image/png", "application/json"
_DIGITS = 8
router = APIRouter(tags=["predict"], generate_unique_id_function=operation_id)


@router.post(
    "/v1/explain",
    responses=reply(ExplanationReply, *REPLY_HEADERS, content={_PNG: {"schema": BINARY}}),
    openapi_extra=describe(f"{QUESTION_PROBLEMS} not-acceptable", headers=QUESTION_HEADERS, body=IMAGE_BODY),
)
async def explain(request: Request) -> Response:
    """Show the attention that a task's prompt causes.

    Two maps of the image, or of the region that the task looks at: the attention that CLS pays to each patch
    in the last block, with the prompt and on the bare backbone. A picture, or the numbers for
    `Accept: application/json`. The endpoint makes one explanation at a time.
    """
    front = front_of(request)
    form = read_accepted(request.headers, (_PNG, _JSON))
    clock = front.clock(request)
    async with clock.in_time():
        ask, picture, content = await read_question(front, request, clock)
        found, view = await front.ask(front.asker.explain(picture, ask, clock.remaining_s))
        clock.end_stage("engine")
        if isinstance(found, Problem):
            raise found
        if isinstance(found, Refusal):
            raise front.refusal_problem(found)
        account = principal_of(request).account
        size = await in_turn(front.decoder.read_size(content, account))
        input_size = front.backbone(found.backbone).image_size
        maps = [lay_back(map_TYX, view, size, input_size) for map_TYX in (found.prompted_TYX, found.bare_TYX)]
        note(request, version=found.version, digest=found.digest)
        headers = {**front.headers(found), "Vary": "Accept"}
        if form == _JSON:
            response: Response = JSONResponse(_describe(found, *maps), headers=headers)
        else:
            region_3HW = await _region(front, picture, content, view, account, found.backbone)
            drawing = await asyncio.to_thread(draw_explanation, region_3HW, found, *maps)
            clock.end_stage("draw")
            response = Response(drawing, media_type=_PNG, headers=headers)
    front.metrics.observe_stages(clock.stages_s)
    return response


async def _region(
    front: Front, picture: Picture, content: bytes, view: View, account: str, fingerprint: str
) -> Image:
    """The region that a task looks at, as large as its tiles together."""
    backbone = front.backbone(fingerprint)
    (rows, columns), (height, width) = view.grid, backbone.image_size
    if (rows, columns, view.fit) == (1, 1, "squash") and not isinstance(
        seen := await picture.seen(view, fingerprint), Problem
    ):
        return seen
    size, whole = (rows * height, columns * width), View(crop=view.crop, bits=view.bits)
    return await in_turn(front.decoder.decode(content, whole, size, account, backbone))


def _describe(found: Explanation, prompted_YX: Map, bare_YX: Map) -> ExplanationReply:
    return {
        "task": found.task,
        "version": found.version,
        "digest": found.digest,
        "layer": "last",
        "attention": prompted_YX.astype(float).round(_DIGITS).tolist(),
        "bare_attention": bare_YX.astype(float).round(_DIGITS).tolist(),
        "entropy": found.entropy,
        "bare_entropy": found.bare_entropy,
        "distance": found.distance,
    }
