"""The Open Inference Protocol, version 2, over REST: each task is a model.

https://github.com/kserve/open-inference-protocol. Tensors come as JSON; the extension for binary data is not
offered. Canaries: all images of a request are answered by one version.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version as version_of
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.canary import key_of_image
from orchestrator.serve.engine_api import Answer, Ask, Image, Refusal, TaskState
from orchestrator.serve.ingress.bodies.tensor_request import INPUT, OUTPUTS, TensorRequest, read_tensors
from orchestrator.serve.ingress.front import Front, unknown_task
from orchestrator.serve.ingress.headers import (
    KEY_HEADER,
    RAW_TYPES,
    VERSION_HEADER,
    check_key,
    check_version,
    media_type,
)
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.problems import Problem

__all__ = ["OpenInferenceRoutes"]

_PLATFORM = "ship_prompt"
_BINARY_HEADER = "Inference-Header-Content-Length"
_ENCODED = "or BYTES [-1]: base64 of JPEG, PNG, WebP, BMP or TIFF files"


class OpenInferenceRoutes:
    """The routes.

    Args:
        front: Of the engine.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def server(self) -> Response:
        """What this server is."""
        body = {"name": "ship", "version": version_of("ship-prompts"), "extensions": []}
        return JSONResponse(body, headers=self._front.headers())

    async def live(self) -> Response:
        """Whether this process runs."""
        return JSONResponse({"live": True})

    async def ready(self) -> Response:
        """Whether requests can be answered: a catalog was loaded once."""
        readiness = await self._front.ask(self._front.engine.readiness())
        if not readiness.ready:
            raise self._front.unavailable("not-ready", readiness.detail)
        return JSONResponse({"ready": True})

    async def model(self, request: Request, task: str) -> Response:
        """A task's tensors."""
        state = await self._state(request, task)
        height, width = self._front.backbone.image_size
        num_labels = len(state.labels) or -1
        body = {
            "name": task,
            "versions": [str(number) for number in _answering(state)],
            "platform": _PLATFORM,
            "inputs": [
                {
                    "name": INPUT,
                    "datatype": "UINT8",
                    "shape": [-1, 3, height, width],
                    "parameters": {"content": "RGB pixels", "alternative": _ENCODED},
                }
            ],
            "outputs": [
                {"name": OUTPUTS[0], "datatype": "FP32", "shape": [-1, num_labels]},
                {"name": OUTPUTS[1], "datatype": "BYTES", "shape": [-1]},
                {"name": OUTPUTS[2], "datatype": "BYTES", "shape": [num_labels]},
            ],
        }
        return JSONResponse(body, headers=self._front.headers())

    async def model_ready(self, request: Request, task: str) -> Response:
        """Whether a task is answered for."""
        state = await self._state(request, task)
        if _version_of(request) is None and not _answering(replace(state, others=())):
            raise self._front.unavailable("task-not-loaded", state.problem or "it is being loaded")
        return JSONResponse({"name": task, "ready": True}, headers=self._front.headers())

    async def infer(self, request: Request, task: str) -> Response:
        """Ask a task about one or several images."""
        front = self._front
        clock = front.clock(request)
        number = self._name(request, task)
        _check_version_header(request)
        _check_content_type(request)
        key = request.headers.get(KEY_HEADER)
        if key is not None:
            check_key(key, f"header {KEY_HEADER}")
        async with clock.in_time():
            body = await front.read(request, front.limits.max_body_bytes)
            asked = await asyncio.to_thread(
                read_tensors,
                body,
                image_size=front.backbone.image_size,
                max_images=front.limits.max_batch_images,
            )
            del body
            clock.end_stage("read")
            images = list(asked.pixels) or await self._decode(asked.files)
            clock.end_stage("decode")
            # One version answers all images of a request: the one that the first would have alone.
            key = key_of_image(images[0]) if key is None else key
            asks = [Ask(task=task, version=number, key=key, image=place) for place in range(len(images))]
            replies = await front.predict(images, asks, clock.remaining_s)
        clock.end_stage("engine")
        answers = self._all_answers(replies)
        front.metrics.observe_stages(clock.stages_s)
        note(request, version=answers[0].version, digest=answers[0].digest, items=len(answers))
        return JSONResponse(_describe(asked, answers), headers=front.headers(answers[0]))

    def _name(self, request: Request, task: str) -> int | None:
        self._front.admit(request, task)
        version = _version_of(request)
        return None if version is None else check_version(version, "path")

    async def _state(self, request: Request, task: str) -> TaskState:
        number = self._name(request, task)
        state = await self._front.ask(self._front.engine.task(task))
        if state is None:
            raise unknown_task(f"task {task!r} is not in the catalog")
        answering = _answering(state)
        if number is not None and number not in answering:
            others = ", ".join(map(str, answering)) or "none"
            detail = f"version {number} of task {task!r} is not served; of its versions, these are: {others}"
            raise Problem("version-not-served", detail)
        return state

    async def _decode(self, files: Sequence[bytes]) -> list[Image]:
        # One after the other: the first that is refused is the last, and those of others have their turns.
        return [await self._front.decode(file) for file in files]

    def _all_answers(self, replies: Sequence[Answer | Refusal]) -> list[Answer]:
        """The protocol knows no reply for some of the images: one refusal is that of the request."""
        answers = []
        for reply in replies:
            if isinstance(reply, Refusal):
                raise self._front.refusal_problem(reply)
            self._front.metrics.observe_answer(reply)
            answers.append(reply)
        if len({answer.digest for answer in answers}) > 1:
            detail = "the task's version changed while its images were being answered; ask again"
            raise self._front.unavailable("version-changed", detail)
        return answers


def _answering(state: TaskState) -> list[int]:
    """The versions that are answered for: also one that is not in memory now, if it can be loaded."""
    champion = state.version
    if champion is None and state.problem is None:
        champion = state.wanted_version
    return [*([] if champion is None else [champion]), *state.others]


def _version_of(request: Request) -> str | None:
    # As an argument of a route it would be read from the query where the path has none.
    version: str | None = request.path_params.get("version")
    return version


def _check_version_header(request: Request) -> None:
    if any(text != _version_of(request) for text in request.headers.getlist(VERSION_HEADER)):
        path = "/v2/models/TASK/versions/VERSION/infer"
        raise Problem(
            "version-in-path",
            f"header {VERSION_HEADER}: expected none; ask {path} for the version that must answer",
        )


def _check_content_type(request: Request) -> None:
    if request.headers.get(_BINARY_HEADER) is not None:
        raise Problem("binary-tensors", f"header {_BINARY_HEADER}: send tensors as JSON")
    kind = media_type(request.headers)
    if kind != "application/json" and kind not in RAW_TYPES:
        raise Problem(
            "content-type-unsupported",
            f"Content-Type {kind[:80]!r}: expected application/json",
        )


def _describe(asked: TensorRequest, answers: Sequence[Answer]) -> dict[str, Any]:
    # The likeliest comes first in an answer; here every row has the same order.
    labels = sorted(label for label, _ in answers[0].probabilities)
    rows = [dict(answer.probabilities) for answer in answers]
    tensors = {
        "probabilities": ("FP32", [len(rows), len(labels)], [row[label] for row in rows for label in labels]),
        "label": ("BYTES", [len(rows)], [answer.probabilities[0][0] for answer in answers]),
        "labels": ("BYTES", [len(labels)], labels),
    }
    body: dict[str, Any] = {
        "model_name": answers[0].task,
        "model_version": str(answers[0].version),
        "parameters": {"digest": answers[0].digest},
        "outputs": [
            {"name": name, "datatype": tensors[name][0], "shape": tensors[name][1], "data": tensors[name][2]}
            for name in asked.outputs
        ],
    }
    return body if asked.id is None else {"id": asked.id, **body}
