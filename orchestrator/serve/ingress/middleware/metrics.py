"""What the ingress counts, in Prometheus' text format.

Engines report the batch with each answer. What they hold is asked of one engine a time, and the page keeps
what each said last. Only some tasks are labels: there may be thousands.
"""

import asyncio
from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.serve.engine_api import Answer, ResidencyStats
from orchestrator.serve.ingress.middleware.residency_metrics import ResidencyMetrics
from orchestrator.serve.ingress.middleware.task_labels import TaskLabels
from orchestrator.serve.ingress.paths import CLIENT_CLOSED_REQUEST, template_of

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
            "Time by stage: read, decode, engine, draw of requests; queue, forward, in the engine, of rows",
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
        self._answers = Counter(
            "ship_answers",
            "Answered rows by task, of tasks that are asked often; the others as other",
            ["task"],
            registry=self._registry,
        )
        self._compared, self._agreed = (
            Counter(name, f"{meaning}, by task as answers are", ["task"], registry=self._registry)
            for name, meaning in (
                ("ship_shadow_compared", "Answers of champions that a shadow was asked for too"),
                ("ship_shadow_agreed", "Of these, where the shadow had the same label"),
            )
        )
        self._task_labels, self._shadow_labels = TaskLabels(), TaskLabels()
        self._residency = ResidencyMetrics()
        self._registry.register(self._residency)

    def count_request(self, path: str, status: int) -> None:
        """Count a request that was answered, in whichever way."""
        self._requests.labels(template_of(path), str(status)).inc()

    def observe_answer(self, answer: Answer) -> None:
        """Note the task of a row, and the batch that it was answered in."""
        self._answers.labels(self._task_labels.label(answer.task)).inc()
        self._stages.labels("queue").observe(answer.queue_s)
        self._stages.labels("forward").observe(answer.forward_s)
        self._batch_rows.observe(answer.batch_rows)
        self._batch_tasks.observe(answer.batch_tasks)

    def observe_comparison(self, answer: Answer, shadow: Answer) -> None:
        """Note what a champion and its shadow said of one image."""
        label = self._shadow_labels.label(answer.task)
        self._compared.labels(label).inc()
        self._agreed.labels(label).inc(shadow.probabilities[0][0] == answer.probabilities[0][0])

    def observe_stages(self, stages_s: Mapping[str, float]) -> None:
        """Note how long the stages of a request took, in seconds."""
        for stage, seconds in stages_s.items():
            self._stages.labels(stage).observe(seconds)

    def note_residency(self, stats: ResidencyStats) -> None:
        """Keep what an engine says that it holds."""
        self._residency.note(stats)

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
        except asyncio.CancelledError:
            # The client hung up, which is no failure of ours; nginx has this number for it.
            status = CLIENT_CLOSED_REQUEST
            raise
        finally:
            self._metrics.count_request(scope["path"], status)
