"""Errors as RFC 9457 problem documents: for our own refusals and for the framework's (404, 405, 422, 500)."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

__all__ = ["MEDIA_TYPE", "Problem", "install_problem_handlers", "problem_response"]

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:ship:problem:"
_log = logging.getLogger(__name__)


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """A request that is refused.

    Args:
        status: HTTP status.
        kind: Short name for programs, the end of the document's ``type``.
        title: The same for people; alike for all problems of a kind.
        detail: What was found, what was expected, what to do.
        headers: Further headers of the response.
    """

    def __init__(
        self, status: int, kind: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})


def problem_response(
    status: int, type_: str, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem document."""
    return JSONResponse(
        {"type": type_, "title": title, "status": status, "detail": detail},
        status_code=status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Have ``app`` word every error as a problem document."""

    async def own(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return problem_response(
            error.status, _TYPE_PREFIX + error.kind, error.title, error.detail, error.headers
        )

    async def framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        title = HTTPStatus(error.status_code).phrase
        return problem_response(error.status_code, "about:blank", title, str(error.detail), error.headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return problem_response(422, "about:blank", HTTPStatus(422).phrase, found)

    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        _log.error("a request failed", exc_info=error)
        detail = "the server failed to answer; its log has the cause"
        return problem_response(500, "about:blank", HTTPStatus(500).phrase, detail)

    app.add_exception_handler(Problem, own)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)
