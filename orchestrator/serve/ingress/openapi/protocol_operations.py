"""The routes of the Open Inference Protocol, each with examples of what is sent and answered."""

from typing import Any

from orchestrator.serve.ingress.openapi.operations import json_response, parameters
from orchestrator.serve.ingress.openapi.problems import error_responses
from orchestrator.serve.ingress.openapi.schemas import HEADERS

__all__ = ["PATHS"]

_MODEL_KINDS = ("task-invalid", "not-allowed", "task-unknown", "busy", "unavailable")
_VERSION_KINDS = ("version-invalid", "version-not-served")
_DIGEST = "5f3a0c9e8b7d6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3b2a19"
_MODEL = {
    "name": "bolts",
    "versions": ["2", "4", "5"],
    "platform": "ship_prompt",
    "inputs": [
        {
            "name": "image",
            "datatype": "UINT8",
            "shape": [-1, 3, 96, 96],
            "parameters": {
                "content": "RGB pixels",
                "alternative": "or BYTES [-1]: base64 of JPEG, PNG, WebP, BMP or TIFF files",
            },
        }
    ],
    "outputs": [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "labels", "datatype": "BYTES", "shape": [2]},
    ],
}
_REQUEST = {
    "id": "request 7",
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0KGgo="]}],
}
_REPLY = {
    "id": "request 7",
    "model_name": "bolts",
    "model_version": "2",
    "parameters": {"digest": _DIGEST},
    "outputs": [
        {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.75, 0.25]},
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["bad"]},
        {"name": "labels", "datatype": "BYTES", "shape": [2], "data": ["bad", "good"]},
    ],
}


def _get(
    operation: str,
    summary: str,
    response: dict[str, Any],
    *kinds: str,
    of: tuple[str, ...] = (),
    is_open: bool = False,
) -> Any:
    described = {
        "operationId": operation,
        "summary": summary,
        "tags": ["open inference protocol"],
        "parameters": parameters(*of),
        "responses": {"200": response, **error_responses(*kinds, is_open=is_open)},
    }
    return {"get": {**described, "security": []} if is_open else described}


def _infer(operation: str, of: tuple[str, ...], *more_kinds: str) -> Any:
    return {
        "post": {
            "operationId": operation,
            "summary": "Ask a task about one or several images.",
            "description": "All images are answered by one version, or none is. `probabilities` has a row an "
            "image, in the order of the output `labels`.",
            "tags": ["open inference protocol"],
            "parameters": parameters(*of, "key", "timeout"),
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/TensorRequest"},
                        "examples": {"an image file": {"value": _REQUEST}},
                    }
                },
            },
            "responses": {
                "200": json_response("Tensors", *HEADERS, answer=_REPLY),
                **error_responses(
                    "task-invalid",
                    "not-allowed",
                    *more_kinds,
                    "version-in-path",
                    "key-invalid",
                    "timeout-invalid",
                    "header-ambiguous",
                    "body-empty",
                    "json-invalid",
                    "binary-tensors",
                    "task-unknown",
                    "body-too-large",
                    "batch-too-large",
                    "image-too-large",
                    "content-type-unsupported",
                    "image-unsupported",
                    "image-corrupt",
                    "busy",
                    "failed",
                    "not-ready",
                    "task-not-loaded",
                    "unavailable",
                    "late",
                ),
            },
        }
    }


def _model_paths(path: str, suffix: str, of: tuple[str, ...], *kinds: str) -> dict[str, Any]:
    ready = json_response("ModelReady", "Ship-Backbone", answer={"name": "bolts", "ready": True})
    model = json_response("Model", "Ship-Backbone", answer=_MODEL)
    return {
        path: _get(f"model{suffix}", "A task's tensors.", model, *_MODEL_KINDS, *kinds, of=of),
        f"{path}/ready": _get(
            f"modelReady{suffix}",
            "Whether a task is answered for.",
            ready,
            *_MODEL_KINDS,
            *kinds,
            "task-not-loaded",
            of=of,
        ),
        f"{path}/infer": _infer(f"infer{suffix}", of, *kinds),
    }


PATHS: dict[str, Any] = {
    "/v2": _get(
        "server",
        "What this server is.",
        json_response(
            "Server", "Ship-Backbone", answer={"name": "ship", "version": "0.1.0", "extensions": []}
        ),
    ),
    "/v2/health/live": _get(
        "live", "Whether this process runs.", json_response("Live", answer={"live": True}), is_open=True
    ),
    "/v2/health/ready": _get(
        "ready",
        "Whether requests can be answered.",
        json_response("Ready", answer={"ready": True}),
        "not-ready",
        "busy",
        "unavailable",
        is_open=True,
    ),
    **_model_paths("/v2/models/{task}", "", ("task",)),
    **_model_paths(
        "/v2/models/{task}/versions/{version}", "Version", ("task", "version_in_path"), *_VERSION_KINDS
    ),
}
