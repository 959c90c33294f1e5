"""Spans that OpenTelemetry's SDK exports, kept in memory."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from orchestrator.tracing import Tracer

__all__ = ["Spans"]


class Spans:
    """The spans of any number of tracers, each of which stands for a process."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer = self.new_tracer()

    def new_tracer(self, sampler: Sampler = ALWAYS_ON) -> Tracer:
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        return Tracer(provider)

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        found = self.named(name)
        assert len(found) == 1, (name, [span.name for span in self.all])
        return found[0]

    def path(self, span: ReadableSpan) -> list[str]:
        """Names from the root's to its own; a parent elsewhere is left out."""
        by_id = {one.context.span_id: one for one in self.all}
        names = [span.name]
        while span.parent is not None and span.parent.span_id in by_id:
            span = by_id[span.parent.span_id]
            names.append(span.name)
        return names[::-1]

    def texts(self) -> str:
        """All that is exported, but for ids."""
        return "\n".join(
            f"{span.name} {dict(span.attributes)} {span.status.description}" for span in self.all
        )
