"""What the ingress counts, in Prometheus' text format.

Engines report the batch with each answer, so that one page tells all, however many replicas there are. Tasks
are no label: there may be thousands.
"""

from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.serve.engine_api import Answer
from orchestrator.serve.paths import template_of

__all__ = ["CONTENT_TYPE", "CountRequests", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_COUNT_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one ingress replica."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ship_requests", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self._stages = Histogram(
            "ship_stage_seconds",
            "Time of answered requests by stage: read, decode, engine",
            ["stage"],
            buckets=_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._batch_rows = Histogram(
            "ship_batch_rows",
            "For each answered row, the rows of its forward pass",
            buckets=_COUNT_BUCKETS,
            registry=self._registry,
        )
        self._batch_tasks = Histogram(
            "ship_batch_tasks",
            "For each answered row, the different tasks of its forward pass",
            buckets=_COUNT_BUCKETS,
            registry=self._registry,
        )

    def count_request(self, path: str, status: int) -> None:
        """Count a request that was answered, in whichever way."""
        self._requests.labels(template_of(path), str(status)).inc()

    def observe_answer(self, answer: Answer) -> None:
        """Note the batch that a row was answered in."""
        self._batch_rows.observe(answer.batch_rows)
        self._batch_tasks.observe(answer.batch_tasks)

    def observe_stages(self, stages_s: Mapping[str, float]) -> None:
        """Note how long the stages of a request took, in seconds."""
        for stage, seconds in stages_s.items():
            self._stages.labels(stage).observe(seconds)

    def render(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)


class CountRequests:
    """ASGI middleware that counts every response by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count the status that is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # An error that nobody words ends as 500, further out.
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            self._metrics.count_request(scope["path"], status)
