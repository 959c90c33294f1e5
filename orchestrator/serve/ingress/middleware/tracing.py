"""A span for each request of an endpoint that is traced, by OpenTelemetry's conventions for HTTP servers."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.serve.ingress.middleware.access_log import METHODS, NOTES
from orchestrator.serve.ingress.paths import template_of
from orchestrator.tracing import Tracer, begin

__all__ = ["TraceRequests"]

_PARENT = ("traceparent", "tracestate")
_NOTED = ("token", "task", "version", "digest", "items", "bytes_in")
# Probes and scrapes would be most of what is seen.
_UNTRACED = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")


class TraceRequests:
    """ASGI middleware that begins a span below that of the client, if its headers name one.

    The span has the facts of the request log, and of the path the route alone, for a path may name a task
    that the token has no access to. The response names the span in W3C's header ``traceresponse``.

    Args:
        app: Application inside.
        tracer: Begins the spans.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, in a span."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        route, method = template_of(scope["path"]), scope["method"]
        known = method if method in METHODS else "_OTHER"
        headers = {name: value for name in _PARENT if (value := _only(scope, name)) is not None}
        attributes = {
            "http.request.method": known,
            "http.route": route,
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version"),
        }
        name = f"{known if known in METHODS else 'HTTP'} {route}"
        with begin(self._tracer, name, headers, attributes, kind="server") as span:
            assert span is not None, "the tracer is there"

            async def name_span(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.note({"http.response.status_code": status})
                    if status >= 500:
                        span.fail(str(status))
                    MutableHeaders(scope=message)["traceresponse"] = span.traceparent
                await send(message)

            notes = scope.setdefault(NOTES, {})
            try:
                await self._app(scope, receive, name_span)
            finally:
                span.note({f"ship.{fact}": notes.get(fact) for fact in _NOTED})


def _only(scope: Scope, name: str) -> str | None:
    """The header of that name; None of one that is there twice, which W3C has ignored."""
    found = [value for key, value in scope["headers"] if key == name.encode()]
    return found[0].decode("latin-1") if len(found) == 1 else None
