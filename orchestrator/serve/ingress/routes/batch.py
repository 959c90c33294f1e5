"""Many images, many tasks: ``POST /v1/predict:batch``.

Each image is decoded once, however many items are about it; what fails, fails alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import Answer, Ask, Image, Refusal
from orchestrator.serve.ingress.bodies.batch_request import BatchItem, BatchRequest, read_batch
from orchestrator.serve.ingress.bodies.image import image_too_large
from orchestrator.serve.ingress.front import Front, answer_body
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.problems import Problem

__all__ = ["BatchRoute"]


class BatchRoute:
    """The route.

    Args:
        front: Of the engine.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def predict_batch(self, request: Request) -> Response:
        """Answer every item, in order; an item without an answer says why."""
        front = self._front
        clock = front.clock(request)
        async with clock.in_time():
            body = await front.read(request, front.limits.max_batch_bytes)
            batch = await asyncio.to_thread(read_batch, request.headers, body, front.limits)
            del body
            clock.end_stage("read")
            admitted = [self._admit(request, item) for item in batch.items]
            note(request, task=None, items=len(batch.items))
            images = await self._decode(batch, admitted)
            clock.end_stage("decode")
            replies = await self._answer(batch.items, admitted, images, clock.remaining_s)
        clock.end_stage("engine")
        front.metrics.observe_stages(clock.stages_s)
        rows = [
            {"image": item.image, **self._describe(item, reply)}
            for item, reply in zip(batch.items, replies, strict=True)
        ]
        return JSONResponse({"items": rows}, headers=front.headers())

    def _admit(self, request: Request, item: BatchItem) -> Problem | None:
        try:
            self._front.admit(request, item.task)
        except Problem as problem:
            return problem
        return None

    async def _decode(
        self, batch: BatchRequest, admitted: Sequence[Problem | None]
    ) -> dict[str, Image | Problem]:
        """Every image that an admitted item is about, once."""

        async def decode(content: bytes) -> Image | Problem:
            if len(content) > self._front.limits.max_body_bytes:
                return image_too_large(self._front.limits.max_body_bytes)
            try:
                return await self._front.decode(content)
            except Problem as problem:
                return problem

        asked = dict.fromkeys(
            item.image for item, problem in zip(batch.items, admitted, strict=True) if problem is None
        )
        found = await asyncio.gather(*(decode(batch.images[name]) for name in asked))
        return dict(zip(asked, found, strict=True))

    async def _answer(
        self,
        items: Sequence[BatchItem],
        admitted: Sequence[Problem | None],
        images: Mapping[str, Image | Problem],
        patience_s: float,
    ) -> list[Answer | Refusal | Problem]:
        """One reply an item; the engine is asked once, about all that can be asked."""
        decoded = {name: image for name, image in images.items() if not isinstance(image, Problem)}
        places = {name: place for place, name in enumerate(decoded)}
        replies: list[Answer | Refusal | Problem | None] = []
        asks: list[Ask] = []
        for item, problem in zip(items, admitted, strict=True):
            found = problem if problem is not None else images[item.image]
            replies.append(found if isinstance(found, Problem) else None)
            if replies[-1] is None:
                place = places[item.image]
                asks.append(Ask(task=item.task, version=item.version, key=item.key, image=place))
        answers: list[Answer | Refusal] = []
        if asks:
            answers = await self._front.predict(list(decoded.values()), asks, patience_s)
        following = iter(answers)
        return [next(following) if reply is None else reply for reply in replies]

    def _describe(self, item: BatchItem, reply: Answer | Refusal | Problem) -> dict[str, Any]:
        if isinstance(reply, Answer):
            self._front.metrics.observe_answer(reply)
            return answer_body(reply)
        problem = self._front.refusal_problem(reply) if isinstance(reply, Refusal) else reply
        return {"task": item.task, "error": problem.document()}
