"""One image, one task: ``POST /v1/predict``."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import Answer, Ask, Image, Refusal
from orchestrator.serve.ingress.bodies.image import extract_image
from orchestrator.serve.ingress.front import Front, answer_body
from orchestrator.serve.ingress.headers import read_wanted
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.request_clock import RequestClock

__all__ = ["PredictRoute", "read_question"]


class PredictRoute:
    """The route.

    Args:
        front: Of the engine.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def predict(self, request: Request) -> Response:
        """Ask the task in header Ship-Task about the image in the body."""
        clock = self._front.clock(request)
        async with clock.in_time():
            ask, image_3HW = await read_question(self._front, request, clock)
            [reply] = await self._front.predict([image_3HW], [ask], clock.remaining_s)
        clock.end_stage("engine")
        if isinstance(reply, Refusal):
            raise self._front.refusal_problem(reply)
        self._front.shadows.compare(reply, image_3HW)
        return self._respond(request, reply, clock)

    def _respond(self, request: Request, answer: Answer, clock: RequestClock) -> Response:
        self._front.metrics.observe_answer(answer)
        self._front.metrics.observe_stages(clock.stages_s)
        note(request, version=answer.version, digest=answer.digest)
        return JSONResponse(answer_body(answer), headers=self._front.headers(answer))


async def read_question(front: Front, request: Request, clock: RequestClock) -> tuple[Ask, Image]:
    """What is asked of which image, by headers and body; time spent is told to the clock.

    Raises:
        Problem: Something of it is refused.
    """
    wanted = read_wanted(request.headers)
    ask = Ask(task=front.admit(request, wanted.task), version=wanted.version, key=wanted.key)
    body = await front.read(request, front.limits.max_body_bytes)
    content = extract_image(request.headers, body)
    clock.end_stage("read")
    image_3HW = await front.decode(content)
    clock.end_stage("decode")
    return ask, image_3HW
