"""The Open Inference Protocol, version 2, over REST: each task is a model.

https://github.com/kserve/open-inference-protocol. Tensors come as JSON; the extension for binary data is not
offered. Canaries: all images of a request are answered by one version.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version as version_of

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orchestrator.serve.engine_api import Answer, Ask, Refusal, ServingState
from orchestrator.serve.ingress.bodies.tensor_request import INPUT, OUTPUTS, TensorRequest, read_tensors
from orchestrator.serve.ingress.bodies.tensor_schemas import (
    LiveReply,
    ModelReadyReply,
    ModelReply,
    ReadyReply,
    ServerReply,
    TensorReply,
)
from orchestrator.serve.ingress.front import Front, front_of, short_rule
from orchestrator.serve.ingress.headers import (
    KEY_HEADER,
    RAW_TYPES,
    VERSION_HEADER,
    check_key,
    check_version,
    media_type,
)
from orchestrator.serve.ingress.middleware.access_log import note
from orchestrator.serve.ingress.openapi import REPLY_HEADERS, describe, operation_id, reply
from orchestrator.serve.ingress.problems import Problem

__all__ = ["router"]

_PLATFORM = "ship_prompt"
_BINARY_HEADER = "Inference-Header-Content-Length"
_ENCODED = "or BYTES [-1]: base64 of JPEG, PNG, WebP, BMP or TIFF files"


_MODEL_PROBLEMS = "task-invalid not-allowed task-unknown task-waiting task-retired busy unavailable"
_INFER_PROBLEMS = (
    f"{_MODEL_PROBLEMS} version-in-path key-invalid timeout-invalid header-ambiguous body-empty json-invalid "
    "binary-tensors body-late body-too-large batch-too-large image-too-large content-type-unsupported "
    "image-unsupported image-too-small image-too-costly image-corrupt failed not-ready task-not-loaded "
    "version-changed late"
)
_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TensorBody"}}},
}
router = APIRouter(tags=["open inference protocol"], generate_unique_id_function=operation_id)


@router.get("/v2", responses=reply(ServerReply, "Ship-Backbone"), openapi_extra=describe())
async def server(request: Request) -> Response:
    """Name and version of this server."""
    body: ServerReply = {"name": "ship", "version": version_of("ship-prompts"), "extensions": []}
    return JSONResponse(body, headers=front_of(request).headers())


@router.get("/v2/health/live", responses=reply(LiveReply), openapi_extra=describe(is_open=True))
async def live() -> Response:
    """Whether this process runs."""
    return JSONResponse({"live": True})


@router.get(
    "/v2/health/ready",
    responses=reply(ReadyReply),
    openapi_extra=describe("not-ready tokens-too-old busy unavailable", is_open=True),
)
async def ready(request: Request) -> Response:
    """Whether the endpoint answers requests: it has loaded a catalog."""
    await front_of(request).check_ready()
    return JSONResponse({"ready": True})


async def model(request: Request, task: str) -> Response:
    """Tensors of a task."""
    front, state = front_of(request), await _state(request, task)
    num_labels = len(state.labels) or -1
    # Pixels of a task with a view are those of the whole picture, of any size.
    own = front.backbone(state.backbone if state.backbone in front.backbones else "").image_size
    size = (-1, -1) if state.view is not None and not state.view.is_whole else own
    body: ModelReply = {
        "name": task,
        "versions": [str(number) for number in _answering(state)],
        "platform": _PLATFORM,
        "inputs": [
            {
                "name": INPUT,
                "datatype": "UINT8",
                "shape": [-1, 3, *size],
                "parameters": {"content": "RGB pixels", "alternative": _ENCODED},
            }
        ],
        "outputs": [
            {"name": OUTPUTS[0], "datatype": "FP32", "shape": [-1, num_labels]},
            {"name": OUTPUTS[1], "datatype": "BYTES", "shape": [-1]},
            {"name": OUTPUTS[2], "datatype": "BYTES", "shape": [num_labels]},
            {"name": OUTPUTS[3], "datatype": "BYTES", "shape": [-1]},
            {"name": OUTPUTS[4], "datatype": "BYTES", "shape": [-1]},
        ],
    }
    return JSONResponse(body, headers=front.headers(state))


async def model_ready(request: Request, task: str) -> Response:
    """Whether the endpoint answers for a task."""
    front, state = front_of(request), await _state(request, task)
    if _version_of(request) is None and not _answering(replace(state, others=())):
        raise front.unavailable("task-not-loaded", state.problem or "it is being loaded")
    return JSONResponse({"name": task, "ready": True}, headers=front.headers(state))


async def infer(request: Request, task: str) -> Response:
    """Ask a task about one or several images.

    One version answers all images, or none is answered. `probabilities` has a row for each image, in the
    order of the output `labels`; `decision` has a label or `unsure` for each, and `decision_because` the
    reason of an `unsure`, or nothing.
    """
    front = front_of(request)
    clock = front.clock(request)
    number = _admit(request, task)
    _check_headers(request)
    key = _read_key(request)
    async with clock.in_time():
        body = await front.read(request, front.limits.max_body_bytes)
        sizes = [backbone.image_size for backbone in front.backbones.values()]
        size, most = max(sizes, key=math.prod), front.limits.max_batch_images
        asked = await asyncio.to_thread(read_tensors, body, image_size=size, max_images=most)
        del body
        clock.end_stage("read")
        # One after the other: the first that is refused is the last, and other requests have their turns.
        pictures = [front.raw_picture(request, pixels) for pixels in asked.pixels]
        pictures += [front.picture(request, file) for file in asked.files]
        ask = Ask(task=task, version=number, key=key)
        for picture in pictures:
            await front.decode(picture, ask)
        clock.end_stage("decode")
        # One version answers all images of a request: the one that the first would have alone.
        key = await pictures[0].key() if key is None else key
        asks = [replace(ask, key=key, image=place) for place in range(len(pictures))]
        replies = await front.predict(pictures, asks, clock.remaining_s)
    clock.end_stage("engine")
    answers = _all_answers(front, replies)
    for answer, picture in zip(answers, pictures, strict=True):
        front.note_answer(request, answer, picture)
    front.metrics.observe_stages(clock.stages_s)
    note(request, version=answers[0].version, digest=answers[0].digest, items=len(answers))
    return JSONResponse(_describe(asked, answers), headers=front.headers(answers[0]))


for _path, _more in (
    ("/v2/models/{task}", ""),
    ("/v2/models/{task}/versions/{version}", " version-invalid version-not-served"),
):
    router.get(
        _path,
        responses=reply(ModelReply, "Ship-Backbone"),
        openapi_extra=describe(_MODEL_PROBLEMS + _more),
    )(model)
    router.get(
        f"{_path}/ready",
        responses=reply(ModelReadyReply, "Ship-Backbone"),
        openapi_extra=describe(f"{_MODEL_PROBLEMS} task-not-loaded{_more}"),
    )(model_ready)
    router.post(
        f"{_path}/infer",
        responses=reply(TensorReply, *REPLY_HEADERS),
        openapi_extra=describe(
            _INFER_PROBLEMS + _more, headers="Ship-Key Ship-Timeout Ship-Keep", body=_BODY
        ),
    )(infer)


def _admit(request: Request, task: str) -> int | None:
    front_of(request).admit(request, task)
    version = _version_of(request)
    return None if version is None else check_version(version, "path")


async def _state(request: Request, task: str) -> ServingState:
    number, state = _admit(request, task), await front_of(request).task_state(request, task)
    answering = _answering(state)
    if number is not None and number not in answering:
        others = ", ".join(map(str, answering)) or "none"
        detail = f"version {number} of task {task!r} is not served; of its versions, these are: {others}"
        raise Problem("version-not-served", detail)
    return state


def _all_answers(front: Front, replies: Sequence[Answer | Refusal | Problem]) -> list[Answer]:
    """The protocol has no reply for some of the images: a refusal of one refuses the request."""
    answers = []
    for found in replies:
        if isinstance(found, Problem):
            raise found
        if isinstance(found, Refusal):
            raise front.refusal_problem(found)
        answers.append(found)
    if len({(answer.digest, answer.rule) for answer in answers}) > 1:
        detail = "the version of the task or its rule changed during the request; send the request again"
        raise front.unavailable("version-changed", detail)
    return answers


def _answering(state: ServingState) -> list[int]:
    """Versions that the endpoint answers for, including one that is not in memory but can be loaded."""
    champion = state.version
    if champion is None and state.problem is None:
        champion = state.wanted_version
    return [*([] if champion is None else [champion]), *state.others]


def _version_of(request: Request) -> str | None:
    # As an argument of a route it would be read from the query where the path has none.
    version: str | None = request.path_params.get("version")
    return version


def _read_key(request: Request) -> str | None:
    key = request.headers.get(KEY_HEADER)
    return None if key is None else check_key(key, f"header {KEY_HEADER}")


def _check_headers(request: Request) -> None:
    if any(text != _version_of(request) for text in request.headers.getlist(VERSION_HEADER)):
        path = "/v2/models/TASK/versions/VERSION/infer"
        raise Problem(
            "version-in-path", f"header {VERSION_HEADER}: expected none; send the request to {path}"
        )
    if request.headers.get(_BINARY_HEADER) is not None:
        raise Problem("binary-tensors", f"header {_BINARY_HEADER}: send tensors as JSON")
    kind = media_type(request.headers)
    if kind != "application/json" and kind not in RAW_TYPES:
        raise Problem("content-type-unsupported", f"Content-Type {kind[:80]!r}: expected application/json")


def _describe(asked: TensorRequest, answers: Sequence[Answer]) -> TensorReply:
    # The likeliest comes first in an answer; here every row has the same order.
    labels = sorted(label for label, _ in answers[0].probabilities)
    rows = [dict(answer.probabilities) for answer in answers]
    tensors: dict[str, tuple[str, list[int], list[float] | list[str]]] = {
        "probabilities": ("FP32", [len(rows), len(labels)], [row[label] for row in rows for label in labels]),
        "label": ("BYTES", [len(rows)], [answer.probabilities[0][0] for answer in answers]),
        "labels": ("BYTES", [len(labels)], labels),
        "decision": ("BYTES", [len(rows)], [answer.decision for answer in answers]),
        "decision_because": ("BYTES", [len(rows)], [str(answer.because or "") for answer in answers]),
    }
    rule = short_rule(answers[0].rule)
    body: TensorReply = {
        "model_name": answers[0].task,
        "model_version": str(answers[0].version),
        "parameters": {"digest": answers[0].digest, **({} if rule is None else {"rule": rule})},
        "outputs": [
            {"name": name, "datatype": tensors[name][0], "shape": tensors[name][1], "data": tensors[name][2]}
            for name in asked.outputs
        ],
    }
    return body if asked.id is None else {"id": asked.id, **body}
