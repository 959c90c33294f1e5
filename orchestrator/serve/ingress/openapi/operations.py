"""The routes of our own, each with examples of what is sent and answered."""

from typing import Any

from orchestrator.serve.ingress.openapi.problems import example_of, problem_responses
from orchestrator.serve.ingress.openapi.schemas import HEADERS, REQUEST_ID

__all__ = ["PATHS", "json_response", "parameters"]

_DIGEST = "5f3a0c9e8b7d6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3b2a19"
_ANSWER = {
    "task": "bolts",
    "version": 2,
    "digest": _DIGEST,
    "label": "bad",
    "probabilities": {"bad": 0.75, "good": 0.25},
}
_BACKBONE = {"name": "bundled", "fingerprint": "0" * 64, "image_size": [96, 96]}
_STATE = {
    "task": "bolts",
    "version": 2,
    "digest": _DIGEST,
    "wanted_version": 3,
    "wanted_digest": _DIGEST[::-1],
    "problem": "prompt.json: it was changed",
    "canary": {"version": 4, "share": 0.05},
    "others": [4, 5],
}
_SHADOW = {"version": 5, "champion": None, "compared": 0, "agreed": 0, "mean_difference": None}
_IMAGE_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/bmp",
    "image/tiff",
    "application/octet-stream",
)
_BINARY = {"type": "string", "format": "binary"}
_HEADER_KINDS = ("version-invalid", "key-invalid", "timeout-invalid", "header-ambiguous")
_IMAGE_KINDS = (
    "body-empty",
    "form-invalid",
    "body-too-large",
    "image-too-large",
    "content-type-unsupported",
    "image-unsupported",
    "image-corrupt",
)
_ENGINE_KINDS = (
    "task-unknown",
    "version-not-served",
    "busy",
    "failed",
    "not-ready",
    "task-not-loaded",
    "unavailable",
    "late",
)


def parameters(*names: str) -> list[dict[str, str]]:
    """References to components, the request's id always among them."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in (*names, "request_id")]


def json_response(schema: str, *headers: str, **examples: Any) -> dict[str, Any]:
    """A response of 200 in JSON."""
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {
        "description": "The answer.",
        "headers": {**{name: HEADERS[name] for name in headers}, **REQUEST_ID},
        "content": {"application/json": content},
    }


def _one_image() -> dict[str, Any]:
    form = {"type": "object", "properties": {"image": _BINARY}, "required": ["image"]}
    raw = {media_type: {"schema": _BINARY} for media_type in _IMAGE_TYPES}
    return {
        "required": True,
        "description": "An image file, as the body or as the one part `image` of a form. Its content decides "
        "what it is; it is resized to the backbone's input without regard to its aspect ratio.",
        "content": {**raw, "multipart/form-data": {"schema": form}},
    }


_PREDICT = {
    "operationId": "predict",
    "summary": "Ask one task about one image.",
    "tags": ["predict"],
    "parameters": parameters("task_header", "version", "key", "timeout"),
    "requestBody": _one_image(),
    "responses": {
        "200": json_response("Answer", *HEADERS, answer=_ANSWER),
        **problem_responses(
            "task-missing", "task-invalid", "not-allowed", *_HEADER_KINDS, *_IMAGE_KINDS, *_ENGINE_KINDS
        ),
    },
}
_BATCH = {
    "operationId": "predictBatch",
    "summary": "Ask any tasks about any images.",
    "description": "A form with a part `request` that says which task is asked about which part, and images "
    "under the names that it uses; or images alone, and header Ship-Task for all of them. Ship-Task, "
    "Ship-Version and Ship-Key are refused beside a part `request`: its items name their own. Each image is "
    "decoded once. An item that is refused says why in `error`, and stops no other: the status is 200 then.",
    "tags": ["predict"],
    "parameters": parameters("task_header_of_images", "version", "key", "timeout"),
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"request": {"$ref": "#/components/schemas/Batch"}},
                    "additionalProperties": _BINARY,
                },
                "encoding": {"request": {"contentType": "application/json"}},
                "examples": {
                    "two tasks, one image": {
                        "value": {
                            "request": {
                                "items": [
                                    {"image": "cap", "task": "bolts", "version": 2, "key": "line 7"},
                                    {"image": "cap", "task": "nuts"},
                                ]
                            },
                            "cap": "(bytes of an image file)",
                        }
                    }
                },
            }
        },
    },
    "responses": {
        "200": json_response(
            "BatchAnswer",
            "Ship-Backbone",
            answer={
                "items": [
                    {"image": "cap", **_ANSWER},
                    {"image": "cap", "task": "nuts", "error": example_of("task-unknown")},
                ]
            },
        ),
        **problem_responses(
            "task-missing",
            *_HEADER_KINDS,
            "body-empty",
            "form-invalid",
            "json-invalid",
            "body-too-large",
            "batch-too-large",
            "content-type-unsupported",
            "busy",
            "unavailable",
            "late",
        ),
    },
}
_EXPLANATION = {
    "task": "bolts",
    "version": 2,
    "digest": _DIGEST,
    "layer": "last",
    "attention": [[0.25, 0.25], [0.25, 0.25]],
    "bare_attention": [[0.5, 0.0], [0.0, 0.5]],
    "entropy": 1.0,
    "bare_entropy": 0.5,
    "distance": 0.5,
}
_EXPLAINED = json_response("Explanation", *HEADERS, answer=_EXPLANATION)
_EXPLAIN = {
    "operationId": "explain",
    "summary": "Show where a task's prompt makes the network look.",
    "description": "Two maps of the image: how CLS shares out its attention over patches in the last block, "
    "with the prompt and on the bare backbone. A picture, or the numbers for `Accept: application/json`. One "
    "explanation is made at a time.",
    "tags": ["predict"],
    "parameters": parameters("task_header", "version", "key", "timeout"),
    "requestBody": _one_image(),
    "responses": {
        "200": {**_EXPLAINED, "content": {**_EXPLAINED["content"], "image/png": {"schema": _BINARY}}},
        **problem_responses(
            "task-missing",
            "task-invalid",
            "not-allowed",
            "not-acceptable",
            *_HEADER_KINDS,
            *_IMAGE_KINDS,
            *_ENGINE_KINDS,
        ),
    },
}
_LIST = {
    "operationId": "listTasks",
    "summary": "All tasks of the catalog.",
    "tags": ["tasks"],
    "parameters": parameters(),
    "responses": {
        "200": json_response(
            "TaskList",
            "Ship-Backbone",
            answer={"backbone": _BACKBONE, "tasks": [{**_STATE, "shadow_version": 5}]},
        ),
        **problem_responses("busy", "unavailable"),
    },
}
_SHOW = {
    "operationId": "showTask",
    "summary": "One task, with its labels.",
    "tags": ["tasks"],
    "parameters": parameters("task"),
    "responses": {
        "200": json_response(
            "Task",
            "Ship-Backbone",
            answer={"backbone": _BACKBONE, **_STATE, "shadow": _SHADOW, "labels": ["good", "bad"]},
        ),
        **problem_responses("task-invalid", "not-allowed", "task-unknown", "busy", "unavailable"),
    },
}
_HEALTH = {
    "operationId": "healthz",
    "security": [],
    "summary": "Whether this process runs.",
    "tags": ["health"],
    "parameters": parameters(),
    "responses": {"200": json_response("Health", answer={"status": "ok"})},
}
_READINESS = {
    "status": "ready",
    "ready": True,
    "detail": "1 tasks are served",
    "num_served": 1,
    "num_problems": 0,
    "num_loading": 0,
    "catalog_age_s": 0.4,
}
_READY = {
    "operationId": "readyz",
    "security": [],
    "summary": "Whether requests can be answered: a catalog was read once.",
    "tags": ["health"],
    "parameters": parameters(),
    "responses": {
        "200": json_response("Readiness", answer=_READINESS),
        **problem_responses("not-ready", "busy", "unavailable", is_open=True),
    },
}


def _text(
    operation: str, summary: str, media_type: str, schema: dict[str, Any], *kinds: str
) -> dict[str, Any]:
    content = {media_type: {"schema": schema}}
    return {
        "operationId": operation,
        "summary": summary,
        "tags": ["health"],
        "parameters": parameters(),
        "responses": {
            "200": {"description": summary, "headers": REQUEST_ID, "content": content},
            **problem_responses(*kinds),
        },
    }


PATHS: dict[str, Any] = {
    "/v1/predict": {"post": _PREDICT},
    "/v1/predict:batch": {"post": _BATCH},
    "/v1/explain": {"post": _EXPLAIN},
    "/v1/tasks": {"get": _LIST},
    "/v1/tasks/{task}": {"get": _SHOW},
    "/healthz": {"get": _HEALTH},
    "/readyz": {"get": _READY},
    "/metrics": {
        "get": _text(
            "metrics", "Counters in Prometheus' text format.", "text/plain", {"type": "string"}, "not-allowed"
        )
    },
    "/openapi.json": {"get": _text("openapi", "This document.", "application/json", {"type": "object"})},
}
