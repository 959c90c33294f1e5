"""Errors as RFC 9457 problem documents: those of the routes and those of the framework (404, 405, 500).

Below /v2 they have the form of the Open Inference Protocol: ``{"error": "..."}``, with the same status.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, with_config
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import TypedDict

from orchestrator.serve.ingress.problem_kinds import KINDS

__all__ = [
    "MEDIA_TYPE",
    "CatchUnexpected",
    "ErrorReply",
    "Problem",
    "ProblemReply",
    "install_problem_handlers",
    "respond",
]

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:ship:problem:"
_PROTOCOL = "/v2"
_log = logging.getLogger(__name__)


@with_config(ConfigDict(extra="forbid"))
class ProblemReply(TypedDict):
    """Problem document of RFC 9457."""

    type: Annotated[str, Field(examples=["urn:ship:problem:task-unknown"])]
    title: Annotated[str, Field(examples=["Unknown task"])]
    status: Annotated[int, Field(examples=[404])]
    detail: Annotated[str, Field(examples=["task 'bolts' is not in the catalog"])]


@with_config(ConfigDict(extra="forbid"))
class ErrorReply(TypedDict):
    """Error of the Open Inference Protocol."""

    error: str


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Refusal of a request.

    Args:
        kind: Key of ``KINDS``, which has status and title; the end of the document's ``type``.
        detail: Found and expected values, and what to do.
        headers: Further headers of the response.
    """

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status = KINDS[kind].status
        self.detail = detail
        self.headers = dict(headers or {})

    def document(self) -> ProblemReply:
        """Problem document of RFC 9457."""
        return {
            "type": _TYPE_PREFIX + self.kind,
            "title": KINDS[self.kind].title,
            "status": self.status,
            "detail": self.detail,
        }


def respond(path: str, problem: Problem) -> JSONResponse:
    """Response for a problem, in the form that ``path`` has; for middleware, outside of all handlers."""
    return _worded(path, problem.document(), problem.headers)


def install_problem_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error with a problem document."""

    async def own(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return respond(request.url.path, error)

    async def framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _worded(request.url.path, _blank(error.status_code, str(error.detail)), error.headers)

    app.add_exception_handler(Problem, own)
    app.add_exception_handler(HTTPException, framework)


class CatchUnexpected:
    """ASGI middleware that answers 500 for an unexpected error, and logs it.

    The framework would do so outside of all middleware, where a reply is neither counted nor logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        is_begun = False

        async def note_begin(message: Message) -> None:
            nonlocal is_begun
            is_begun = is_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note_begin)
        # A boundary: a bug of ours ends one request.
        except Exception as error:
            if scope["type"] != "http" or is_begun:
                raise
            _log.error("a request failed", exc_info=error)
            document = _blank(500, "the server failed to answer; its log has the cause")
            await _worded(scope["path"], document)(scope, receive, send)


def _blank(status: int, detail: str) -> ProblemReply:
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def _worded(path: str, document: ProblemReply, headers: Mapping[str, str] | None = None) -> JSONResponse:
    status, named = document["status"], dict(headers or {})
    if path == _PROTOCOL or path.startswith(_PROTOCOL + "/"):
        error = f"{document['title']}: {document['detail']}"
        reply: ErrorReply = {"error": error}
        return JSONResponse(reply, status_code=status, headers=named)
    return JSONResponse(document, status_code=status, headers=named, media_type=MEDIA_TYPE)
