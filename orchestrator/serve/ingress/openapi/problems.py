"""The kinds of problem, each with an example as it is answered, and the responses made of them."""

from collections.abc import Mapping
from typing import Any

from orchestrator.serve.ingress.problems import MEDIA_TYPE

__all__ = ["KINDS", "error_responses", "problem_responses"]

# Kind: status, title, an example of the detail.
KINDS: Mapping[str, tuple[int, str, str]] = {
    "task-missing": (
        400,
        "No task was named",
        "expected one header Ship-Task that names the task, there is none; GET /v1/tasks lists all tasks",
    ),
    "task-invalid": (
        400,
        "Not a task name",
        "'../bolts': expected 1 to 63 characters of a-z, 0-9, '.', '_' and '-', starting with a letter or "
        "digit; GET /v1/tasks lists all tasks",
    ),
    "version-invalid": (
        400,
        "Not a version",
        "header Ship-Version: expected a whole number such as 3, found 'new'",
    ),
    "version-in-path": (
        400,
        "The path names the version",
        "header Ship-Version: expected none; ask /v2/models/TASK/versions/VERSION/infer for the version that "
        "must answer",
    ),
    "key-invalid": (
        400,
        "Not a key",
        "header Ship-Key: expected 1 to 128 printable characters of ASCII, found 0 characters ''",
    ),
    "timeout-invalid": (
        400,
        "Not a time",
        "header Ship-Timeout: expected seconds above 0 such as 0.5, found 'soon'",
    ),
    "header-ambiguous": (400, "A header contradicts itself", "found 2 different Ship-Version"),
    "body-empty": (400, "Nothing was sent", "the body is empty; expected an image or JSON"),
    "form-invalid": (
        400,
        "Not the form that was expected",
        "expected multipart/form-data with exactly one file named 'image'; the content type names no "
        "boundary, or none of a sensible length",
    ),
    "json-invalid": (
        400,
        "Not the JSON that was expected",
        "request.items[0]: unknown 'threshold'; known are image, task, version, key",
    ),
    "binary-tensors": (
        400,
        "No binary tensors",
        "header Inference-Header-Content-Length: send tensors as JSON",
    ),
    "token-missing": (
        401,
        "A token is needed",
        "expected a header `Authorization: Bearer ship_...`; whoever runs this endpoint makes a token with "
        "`ship token create`",
    ),
    "token-invalid": (
        401,
        "The token is not valid",
        "the token is not valid, or not any more; whoever runs this endpoint makes one with `ship token "
        "create` or `ship token rotate`",
    ),
    "not-allowed": (
        403,
        "The token does not allow this",
        "token 'line-1' may not ask task 'bolts'; its tasks: line-1-*; use another token",
    ),
    "task-unknown": (
        404,
        "Unknown task",
        "task 'nuts' is not in the catalog; GET /v1/tasks lists all tasks",
    ),
    "version-not-served": (
        404,
        "That version is not served",
        "version 7 of task 'bolts' is not served; version 2 is",
    ),
    "not-acceptable": (
        406,
        "Not to be had that way",
        "expected Accept: image/png or application/json",
    ),
    "body-too-large": (
        413,
        "The request is too large",
        "expected at most 20971520 bytes; send smaller or more compressed images, or fewer at a time",
    ),
    "image-too-large": (
        413,
        "The image has too many pixels",
        "9000 x 9000 = 81000000 pixels, more than the 50000000 that are allowed",
    ),
    "batch-too-large": (413, "Too much at a time", "300 items: expected at most 256; send more requests"),
    "content-type-unsupported": (
        415,
        "Unsupported content type",
        "Content-Type 'text/plain': expected image/*, application/octet-stream or multipart/form-data with "
        "exactly one file named 'image'",
    ),
    "image-unsupported": (
        415,
        "Not an image of a supported format",
        "expected JPEG, PNG, WEBP, BMP, TIFF, found content that starts with b'<svg/>'",
    ),
    "image-corrupt": (422, "The image is broken", "broken PNG file: image file is truncated"),
    "busy": (429, "Too many requests", "too many requests are waiting for an engine; try again shortly"),
    "failed": (500, "The task failed to answer", "the forward pass failed (RuntimeError)"),
    "not-ready": (503, "Not ready yet", "the catalog is being loaded"),
    "task-not-loaded": (
        503,
        "The task is not served now",
        "version 3 of task 'bolts' is not served: it is being loaded",
    ),
    "unavailable": (503, "No engine answers", "the engine died 2 times over; try again shortly"),
    "late": (
        504,
        "Not in time",
        "no answer within 0.5 s (done by then: read 0.001 s, decode 0.012 s); allow more time in header "
        "Ship-Timeout, or try again",
    ),
}
_MEANINGS = {
    400: "Something of the request is not what it should be.",
    401: "The endpoint asks for a token, and there is none, or one that it does not know.",
    403: "The token does not allow this.",
    404: "No such task or version.",
    406: "Not to be had in the wanted form.",
    413: "Too large.",
    415: "Not a format that is read.",
    422: "The image is broken.",
    429: "Too many requests; Retry-After says when to ask again.",
    500: "The server failed.",
    503: "Not now; Retry-After says when to ask again.",
    504: "Time was up.",
}
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 0}}
}
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
_HEADERS = {401: _CHALLENGE, 403: _CHALLENGE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}
_TOKEN_KINDS = ("token-missing", "token-invalid")


def problem_responses(*kinds: str, is_open: bool = False) -> dict[str, Any]:
    """Responses with problem documents (RFC 9457), by status, an example a kind.

    Args:
        kinds: Names in ``KINDS``.
        is_open: No token is asked for.
    """
    kinds = kinds if is_open else (*_TOKEN_KINDS, *kinds)
    return _responses(kinds, MEDIA_TYPE, "Problem", example_of)


def error_responses(*kinds: str, is_open: bool = False) -> dict[str, Any]:
    """The same as the Open Inference Protocol words it."""
    kinds = kinds if is_open else (*_TOKEN_KINDS, *kinds)
    return _responses(
        kinds, "application/json", "Error", lambda kind: {"error": f"{KINDS[kind][1]}: {KINDS[kind][2]}"}
    )


def example_of(kind: str) -> dict[str, Any]:
    """A problem document."""
    status, title, detail = KINDS[kind]
    return {"type": f"urn:ship:problem:{kind}", "title": title, "status": status, "detail": detail}


def _responses(kinds: tuple[str, ...], media_type: str, schema: str, example: Any) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in sorted({KINDS[kind][0] for kind in kinds}):
        examples = {kind: {"value": example(kind)} for kind in kinds if KINDS[kind][0] == status}
        content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": examples}
        responses[str(status)] = {"description": _MEANINGS[status], "content": {media_type: content}}
        if status in _HEADERS:
            responses[str(status)]["headers"] = _HEADERS[status]
    return responses
