"""Distributed tracing by OpenTelemetry: spans of requests and tunings, if the environment asks for them.

A process opens one tracer, and begins a span where work comes in: a request, a question, a lease, a command.
What is done for it begins spans below that of its context, and none where there is none: what is not traced
costs a look at a context variable, and imports nothing. The provider is our own: the global one is Ray
Serve's or MLflow's to set.
Spans have no text of an exception, no picture, no label: names, numbers, ids and digests.
"""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

from ship.version import __version__

__all__ = [
    "Attributes",
    "Laps",
    "Span",
    "Tracer",
    "begin",
    "current",
    "note",
    "open_tracer",
    "record",
    "span",
    "span_of_batch",
    "traced_process",
    "under",
]

Value = str | int | float | bool | None
Attributes = Mapping[str, Value]
Kind = Literal["internal", "server", "client"]

_log = logging.getLogger(__name__)
_EXPORTERS = ("otlp", "console", "none")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_NS = 1_000_000_000


class Tracer:
    """Begins spans in one process.

    Args:
        provider: A ``TracerProvider`` of OpenTelemetry's SDK, which ends with the tracer.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace, self._no_context, self._headers = trace, Context(), TraceContextTextMapPropagator()
        self._provider = provider
        self._tracer = provider.get_tracer("ship", __version__)

    def start(
        self,
        name: str,
        parent: "Span | Mapping[str, str] | None" = None,
        attributes: Attributes | None = None,
        *,
        kind: Kind = "internal",
        links: "Sequence[Span]" = (),
        start_ns: int | None = None,
    ) -> "Span":
        """Start a span, which is to be ended.

        Args:
            name: Name of the span.
            parent: The span that it belongs to, or W3C's headers ``traceparent`` and ``tracestate`` of one in
                another process; None for a trace of its own.
            attributes: Attributes; one that is None is left out.
            kind: See OpenTelemetry's ``SpanKind``.
            links: Other spans that it is done for.
            start_ns: Nanoseconds since the epoch; None for now.
        """
        # Never the context of OpenTelemetry: what is in there is of another library.
        context = self._no_context
        if isinstance(parent, Span):
            context = self._trace.set_span_in_context(parent.span, context)
        elif parent:
            context = self._headers.extract(parent, context)
        found = self._tracer.start_span(
            name,
            context,
            self._trace.SpanKind[kind.upper()],
            _known(attributes),
            [self._trace.Link(link.span.get_span_context()) for link in links],
            start_ns,
        )
        return Span(self, found)

    def failed(self) -> Any:
        """The status of a span that failed."""
        return self._trace.Status(self._trace.StatusCode.ERROR)

    def close(self) -> None:
        """Export what has not been yet, and end."""
        self._provider.shutdown()


class Span:
    """A span that is under way.

    Args:
        tracer: Tracer that started it.
        span: OpenTelemetry's span.
    """

    __slots__ = ("span", "tracer")

    def __init__(self, tracer: Tracer, span: Any) -> None:
        self.tracer, self.span = tracer, span

    @property
    def traceparent(self) -> str:
        """W3C's header of that name, by which another process begins a span below this one."""
        context = self.span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return f"{self.span.get_span_context().trace_id:032x}"

    def note(self, attributes: Attributes) -> None:
        """Add attributes; one that is None is left out."""
        self.span.set_attributes(_known(attributes))

    def fail(self, kind: str) -> None:
        """Mark it as failed, with a low-cardinality kind of error: a class, a status, a reason."""
        self.span.set_attribute("error.type", kind)
        self.span.set_status(self.tracer.failed())

    def record(self, name: str, start_ns: int, end_ns: int, attributes: Attributes | None = None) -> None:
        """Add a span below it that is over."""
        self.tracer.start(name, self, attributes, start_ns=start_ns).span.end(end_ns)


_current: ContextVar[Span | None] = ContextVar("ship.span", default=None)
_NOTHING: AbstractContextManager[None] = nullcontext()


def current() -> Span | None:
    """The span of this context; None where nothing is traced."""
    return _current.get()


def note(attributes: Attributes) -> None:
    """Add attributes to the span of this context, if there is one."""
    if (found := _current.get()) is not None:
        found.note(attributes)


def span(
    name: str, attributes: Attributes | None = None, *, kind: Kind = "internal"
) -> AbstractContextManager[Span | None]:
    """Context of a span below that of this context; of none where there is none."""
    parent = _current.get()
    return _NOTHING if parent is None else _ended(parent.tracer.start(name, parent, attributes, kind=kind))


def begin(
    tracer: Tracer | None,
    name: str,
    parent: Mapping[str, str] | str | None,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
) -> AbstractContextManager[Span | None]:
    """Context of a span for what came from another process, if this one has a tracer.

    Args:
        tracer: Tracer of this process, if it traces.
        name: Name of the span.
        parent: The span there: its headers, or its ``traceparent`` alone; None or empty for none.
        attributes: See ``Tracer.start``.
        kind: See ``Tracer.start``.
    """
    if tracer is None:
        return _NOTHING
    headers = {"traceparent": parent} if isinstance(parent, str) else parent
    return _ended(tracer.start(name, headers, attributes, kind=kind))


def span_of_batch(
    name: str, parts: Sequence[Span | None], attributes: Attributes | None = None
) -> AbstractContextManager[Span | None]:
    """Context of one span for several others: below the first of them, and linked with them all, both ways.

    As OpenTelemetry's conventions have it for batches. A trace of its own would be sampled apart from theirs.
    """
    found = [part for part in parts if part is not None]
    if not found:
        return _NOTHING
    batch = found[0].tracer.start(name, found[0], attributes, links=found)
    for part in found:
        part.span.add_link(batch.span.get_span_context())
    return _ended(batch)


def record(name: str, took_s: float, ago_s: float = 0.0, attributes: Attributes | None = None) -> None:
    """Add a span that is over to the span of this context: it took ``took_s`` until ``ago_s`` ago."""
    if (parent := _current.get()) is not None:
        end_ns = time.time_ns() - round(ago_s * _NS)
        parent.record(name, end_ns - round(took_s * _NS), end_ns, attributes)


@contextmanager
def under(parent: Span | None) -> Iterator[None]:
    """Context of a span that another thread has started; it is not ended."""
    token = _current.set(parent)
    try:
        yield
    finally:
        _current.reset(token)


class Laps:
    """Spans in a row, each from the end of the one before, below the span of the context that made them.

    Args:
        name: Name of each span.
    """

    def __init__(self, name: str) -> None:
        self._name, self._parent = name, _current.get()
        self._start_ns = time.time_ns()

    def end(self, attributes: Attributes) -> None:
        """End a span; the next one begins. From any thread."""
        if self._parent is not None:
            start_ns, self._start_ns = self._start_ns, time.time_ns()
            self._parent.record(self._name, start_ns, self._start_ns, attributes)


@contextmanager
def _ended(started: Span) -> Iterator[Span]:
    """The span as that of the context; an exception is noted by its class, for its text may name anything."""
    token = _current.set(started)
    try:
        yield started
    except SystemExit as error:
        if error.code:
            started.fail("SystemExit")
        raise
    except BaseException as error:
        started.fail(type(error).__qualname__)
        raise
    finally:
        _current.reset(token)
        started.span.end()


def open_tracer(environ: Mapping[str, str], process: str) -> Tracer | None:
    """The tracer of a process; None unless ``OTEL_*`` asks for traces and says where they go.

    Never raises: what cannot be traced is still answered and tuned. It logs why not.

    Args:
        environ: The environment: the variables that OpenTelemetry names.
        process: What this process is, for the attribute ``ship.process`` of its resource.
    """
    exporters = _exporters(environ)
    if not exporters:
        return None
    try:
        return Tracer(_make_provider(process, exporters))
    except ImportError as error:
        _log.warning(
            "OTEL_* asks for traces, and %s is not installed: nothing is traced; pip install "
            "'ship-prompts[otel]'",
            error.name,
        )
    # A boundary: the SDK raises as it likes over values of the environment.
    except Exception as error:
        _log.warning("nothing is traced: OTEL_* cannot be followed", exc_info=error)
    return None


@contextmanager
def traced_process(environ: Mapping[str, str], process: str, name: str) -> Iterator[None]:
    """A command as one span, below that of ``TRACEPARENT``, if its environment asks for traces."""
    tracer = open_tracer(environ, process)
    try:
        with begin(tracer, name, environ.get("TRACEPARENT")):
            yield
    finally:
        if tracer is not None:
            tracer.close()


def _exporters(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    if not named:
        named = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    wanted = [one.strip() for one in named.split(",") if one.strip()]
    for one in wanted:
        if one not in _EXPORTERS:
            _log.warning("OTEL_TRACES_EXPORTER: %r; expected otlp, console or none", one[:40])
    protocol = next(filter(None, map(environ.get, _PROTOCOLS)), "http/protobuf")
    if "otlp" in wanted and protocol != "http/protobuf":
        _log.warning("%s: %r; expected http/protobuf: nothing is traced", _PROTOCOLS[1], protocol[:40])
        return []
    return [] if "none" in wanted else [one for one in wanted if one in _EXPORTERS]


def _make_provider(process: str, exporters: Sequence[str]) -> Any:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    # The name that the environment gives wins. The sampler, and how spans are gathered, the SDK reads itself.
    named = {"service.name": "ship", **OTELResourceDetector().detect().attributes}
    resource = Resource.create({**named, "service.version": __version__, "ship.process": process})
    provider = TracerProvider(resource=resource)
    if "otlp" in exporters:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if "console" in exporters:
        # Standard output is a command's own.
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
    return provider


def _known(attributes: Attributes | None) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if value is not None}
