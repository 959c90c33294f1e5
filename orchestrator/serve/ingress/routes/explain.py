"""Where a task's prompt makes the network look: ``POST /v1/explain``."""

import asyncio
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import Explanation, Image, Refusal
from orchestrator.serve.ingress.front import Front
from orchestrator.serve.ingress.headers import read_accepted
from orchestrator.serve.ingress.heat_map import draw_explanation
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.request_clock import RequestClock
from orchestrator.serve.ingress.routes.predict import read_question

__all__ = ["ExplainRoute"]

_PNG, _JSON = "image/png", "application/json"
_DIGITS = 8


class ExplainRoute:
    """The route.

    Args:
        front: Of the engine.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def explain(self, request: Request) -> Response:
        """Show what the task in header Ship-Task makes the network attend to in the image in the body."""
        form = read_accepted(request.headers, (_PNG, _JSON))
        clock = self._front.clock(request)
        async with clock.in_time():
            ask, image_3HW = await read_question(self._front, request, clock)
            reply = await self._front.ask(self._front.engine.explain(image_3HW, ask, clock.remaining_s))
            clock.end_stage("engine")
            if isinstance(reply, Refusal):
                raise self._front.refusal_problem(reply)
            note(request, version=reply.version, digest=reply.digest)
            response = await self._respond(form, image_3HW, reply, clock)
        self._front.metrics.observe_stages(clock.stages_s)
        return response

    async def _respond(
        self, form: str, image_3HW: Image, found: Explanation, clock: RequestClock
    ) -> Response:
        headers = {**self._front.headers(found), "Vary": "Accept"}
        if form == _JSON:
            return JSONResponse(_describe(found), headers=headers)
        picture = await asyncio.to_thread(draw_explanation, image_3HW, found)
        clock.end_stage("draw")
        return Response(picture, media_type=_PNG, headers=headers)


def _describe(found: Explanation) -> dict[str, Any]:
    return {
        "task": found.task,
        "version": found.version,
        "digest": found.digest,
        "layer": "last",
        "attention": found.prompted_YX.astype(float).round(_DIGITS).tolist(),
        "bare_attention": found.bare_YX.astype(float).round(_DIGITS).tolist(),
        "entropy": found.entropy,
        "bare_entropy": found.bare_entropy,
        "distance": found.distance,
    }
