"""Request log: one JSON line and one count for each request, and an id to find the line by.

A line has the facts that routes noted of the request: never an image, a secret, or a path without a route.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.serve.ingress.paths import CLIENT_CLOSED_REQUEST, template_of
from orchestrator.serve.process_log import append_to
from orchestrator.tracing import Span, current

__all__ = ["LOGGER", "METHODS", "NOTES", "REQUEST_ID_HEADER", "AccessLog", "note", "open_request_log"]

LOGGER = "ship.access"
REQUEST_ID_HEADER = "X-Request-ID"
# Of the scope: facts of the request that a route has noted.
NOTES = "ship.notes"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
_MAX_ID_CHARS = 128
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DIGEST_CHARS = 12


def note(request: Request, **facts: Any) -> None:
    """Note facts of a request for its log line: ``token`` (its id), ``task``, ``digest``, ``stages_s`` ..."""
    request.scope.setdefault(NOTES, {}).update(facts)


def open_request_log(file: str) -> None:
    """Append the lines of this process to a file, which may be moved away meanwhile.

    Raises:
        OSError: The file cannot be written.
    """
    append_to(file, LOGGER, "%(message)s", logging.INFO)


class AccessLog:
    """ASGI middleware that gives each request an id, logs it at level INFO, and counts its reply.

    The id is that of the header X-Request-ID if it is 1 to 128 letters, digits and ``._:/+=@-``; else it is
    made. The response has it in the same header.

    Args:
        app: Application inside.
        count: Called with path and status of each reply.
        names_responses: Put the id into the response; False behind a proxy that does.
    """

    def __init__(
        self, app: ASGIApp, count: Callable[[str, int], None], *, names_responses: bool = True
    ) -> None:
        self._app = app
        self._count = count
        self._names_responses = names_responses
        self._logger = logging.getLogger(LOGGER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; log and count it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes: dict[str, Any] = scope.setdefault(NOTES, {})
        request_id = _request_id(scope, is_named=not self._names_responses)
        if (traced := current()) is not None:
            traced.note({"ship.request_id": request_id})
        started_s = time.perf_counter()
        # An error without a handler becomes 500 further out.
        status = 500

        async def name_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._names_responses:
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, name_response)
        except asyncio.CancelledError:
            # The client disconnected, which is no failure of the server; nginx uses this status for it.
            status = CLIENT_CLOSED_REQUEST
            raise
        finally:
            self._count(scope["path"], status)
            if self._logger.isEnabledFor(logging.INFO):
                seconds = time.perf_counter() - started_s
                line = _line(scope, notes, request_id, status, seconds)
                self._logger.info(json.dumps(line | _trace(traced)))


def _line(
    scope: Scope, notes: Mapping[str, Any], request_id: str, status: int, seconds: float
) -> dict[str, Any]:
    digest = notes.get("digest")
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "method": scope["method"] if scope["method"] in METHODS else "other",
        "route": template_of(scope["path"]),
        "status": status,
        "token": notes.get("token"),
        "task": notes.get("task"),
        "version": notes.get("version"),
        "digest": digest[:_DIGEST_CHARS] if digest else None,
        "items": notes.get("items"),
        "bytes_in": notes.get("bytes_in", 0),
        "seconds": round(seconds, 6),
        "stages_s": {stage: round(took_s, 6) for stage, took_s in notes.get("stages_s", {}).items()},
    }


def _trace(traced: Span | None) -> dict[str, str]:
    return {} if traced is None else {"trace_id": traced.trace_id}


def _request_id(scope: Scope, *, is_named: bool) -> str:
    found = [value for name, value in scope["headers"] if name == REQUEST_ID_HEADER.lower().encode()]
    text = found[0].decode("latin-1") if found else ""
    if is_named and text:
        # The response has it unchanged; JSON escapes it.
        return text[:_MAX_ID_CHARS]
    return text if len(found) == 1 and _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex
