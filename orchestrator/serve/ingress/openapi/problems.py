"""Responses with problem documents, by status, with an example of each kind."""

from typing import Any

from orchestrator.serve.ingress.problem_kinds import KINDS
from orchestrator.serve.ingress.problems import MEDIA_TYPE, Problem

__all__ = ["error_responses", "example_of", "problem_responses"]

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
        kinds,
        "application/json",
        "Error",
        lambda kind: {"error": f"{KINDS[kind].title}: {KINDS[kind].example}"},
    )


def example_of(kind: str) -> dict[str, Any]:
    """A problem document."""
    return Problem(kind, KINDS[kind].example).document()


def _responses(kinds: tuple[str, ...], media_type: str, schema: str, example: Any) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in sorted({KINDS[kind].status for kind in kinds}):
        examples = {kind: {"value": example(kind)} for kind in kinds if KINDS[kind].status == status}
        content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": examples}
        responses[str(status)] = {"description": _MEANINGS[status], "content": {media_type: content}}
        if status in _HEADERS:
            responses[str(status)]["headers"] = _HEADERS[status]
    return responses
