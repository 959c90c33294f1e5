"""Metrics of the ingress in Prometheus' text format.

Engines report the batch with each answer. Each scrape asks all engines for their residency, and the page
keeps the last report of each. Only tasks that are asked often become labels: there may be thousands.
"""

import collections
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.serve.drift.sighting import Drift
from orchestrator.serve.engine_api import Answer, ResidencyStats
from orchestrator.serve.ingress.paths import template_of

__all__ = ["CONTENT_TYPE", "OTHERS", "Metrics", "ResidencyMetrics", "TaskLabels"]

OTHERS = "other"

# An engine without a report for so long is gone, or got another name by a restart.
_KEPT_S = 300.0
_AGE = "catalog_age_s"
_COUNTERS = {
    "ship_prompt_loads": ("Prompts loaded", "num_loads"),
    "ship_prompt_load_failures": ("Loads of prompts that failed", "num_load_failures"),
    "ship_prompt_evictions": ("Prompts that gave way to others", "num_evictions"),
    "ship_swaps": ("Champions that another prompt took the place of", "num_swaps"),
}
_GAUGES = {
    "ship_catalog_tasks": ("Tasks of the catalog", "num_catalog_tasks"),
    "ship_catalog_lost_tasks": ("Tasks that left the catalog and have not come back", "num_lost"),
    "ship_resident_prompts": ("Prompts in memory", "num_resident"),
    "ship_resident_bytes": ("Device memory that prompts take", "resident_bytes"),
    "ship_catalog_age_seconds": ("Since the catalog was last seen to be current", _AGE),
}

CONTENT_TYPE = CONTENT_TYPE_LATEST
_COUNT_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Metrics of one ingress replica."""

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
        self._decisions = Counter(
            "ship_decisions",
            "Answered rows by task, as answers are, and decision: label, or unsure_ and its reason",
            ["task", "decision"],
            registry=self._registry,
        )
        self._compared, self._agreed = (
            Counter(name, f"{meaning}, by task as answers are", ["task"], registry=self._registry)
            for name, meaning in (
                ("ship_shadow_compared", "Answers of champions that a shadow was asked for too"),
                ("ship_shadow_agreed", "Of these, where the shadow had the same label"),
            )
        )
        self._token_grace, self._stale_tokens = (
            Gauge(name, meaning, registry=self._registry)
            for name, meaning in (
                ("ship_token_grace_seconds", "Longest time for which tokens that cannot be read stay valid"),
                (
                    "ship_tokens_too_old",
                    "1 while all requests are refused, as tokens were not read in time",
                ),
            )
        )
        self._task_labels, self._shadow_labels = TaskLabels(), TaskLabels()
        self._residency = ResidencyMetrics()
        self._looks_s: Mapping[str, float] = {}
        self._num_broken: Mapping[str, int] = {}
        self._drift = list(_drift((), 0, 0))
        self._kept: Mapping[str, int] = {}

    def count_request(self, path: str, status: int) -> None:
        """Count a reply by route and status."""
        self._requests.labels(template_of(path), str(status)).inc()

    def observe_answer(self, answer: Answer) -> None:
        """Observe an answer: its task, its decision, its times in the engine and its batch."""
        label = self._task_labels.label(answer.task)
        self._answers.labels(label).inc()
        decision = "label" if answer.because is None else f"unsure_{answer.because}"
        self._decisions.labels(label, decision).inc()
        self._stages.labels("queue").observe(answer.queue_s)
        self._stages.labels("forward").observe(answer.forward_s)
        self._batch_rows.observe(answer.batch_rows)
        self._batch_tasks.observe(answer.batch_tasks)

    def observe_comparison(self, answer: Answer, shadow: Answer) -> None:
        """Observe the answers of a champion and its shadow for one image."""
        label = self._shadow_labels.label(answer.task)
        self._compared.labels(label).inc()
        self._agreed.labels(label).inc(shadow.probabilities[0][0] == answer.probabilities[0][0])

    def observe_stages(self, stages_s: Mapping[str, float]) -> None:
        """Observe the duration of each stage of a request, in seconds."""
        for stage, seconds in stages_s.items():
            self._stages.labels(stage).observe(seconds)

    def note_residency(self, stats: ResidencyStats) -> None:
        """Keep an engine's report of its residency."""
        self._residency.note(stats)

    def note_looks(self, ages_s: Mapping[str, float], num_broken: Mapping[str, int]) -> None:
        """Keep the ages of the last looks of this scrape, and how many entries they could not read."""
        self._looks_s, self._num_broken = ages_s, num_broken

    def note_kept(self, counts: Mapping[str, int]) -> None:
        """Keep how many pictures were kept, and how many were not, of this scrape."""
        self._kept = counts

    def note_drift(self, drifts: Sequence[Drift], num_alarms: int, num_dropped: int) -> None:
        """Keep what the poller says of drift, for this scrape and those before it says more."""
        self._drift = list(_drift(drifts, num_alarms, num_dropped))

    def note_tokens(self, grace_s: float, *, is_stale: bool) -> None:
        """Keep the state of the tokens of this scrape."""
        self._token_grace.set(grace_s)
        self._stale_tokens.set(is_stale)

    def families(self) -> list[Metric]:
        """Metrics of this ingress."""
        looks = _looks()
        for of, age_s in sorted(self._looks_s.items()):
            looks.add_metric([of, ""], age_s)
        broken = _broken()
        for of, number in sorted(self._num_broken.items()):
            broken.add_metric([of, ""], number)
        kept = CounterMetricFamily(
            "ship_kept_pictures",
            "Pictures to be kept in the store: kept, known already, full (no room), failed (the store)",
            labels=["outcome"],
        )
        for outcome, number in sorted(self._kept.items()):
            kept.add_metric([outcome], number)
        return [*self._registry.collect(), looks, broken, kept]

    def engine_families(self) -> list[Metric]:
        """Metrics of the engines and of drift, as they were reported."""
        return [*self._residency.collect(), *self._drift]


class ResidencyMetrics(Collector):
    """Collector of the engines' residency reports for ``prometheus_client``.

    Args:
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, ResidencyStats]] = {}

    def note(self, stats: ResidencyStats) -> None:
        """Keep an engine's report."""
        self._said[stats.replica] = self._clock(), stats

    def collect(self) -> Iterator[Metric]:
        """Metrics of all recent reports; called when the page is rendered."""
        now_s = self._clock()
        self._said = {name: said for name, said in self._said.items() if now_s - said[0] < _KEPT_S}
        for families, make in ((_COUNTERS, CounterMetricFamily), (_GAUGES, GaugeMetricFamily)):
            for name, (meaning, attribute) in families.items():
                family = make(name, meaning, labels=["engine", "backbone"])
                for engine, (said_at_s, stats) in sorted(self._said.items()):
                    value = getattr(stats, attribute)
                    # Before the first catalog there is no age.
                    if value is not None:
                        # The age grows while the engine does not report.
                        since_s = now_s - said_at_s if attribute == _AGE else 0.0
                        family.add_metric([engine, stats.backbone], value + since_s)
                yield family
        yield self._precisions()
        yield self._looks(now_s)
        yield self._broken()

    def _broken(self) -> Metric:
        family = _broken()
        for engine, (_, stats) in sorted(self._said.items()):
            family.add_metric(["catalog", engine], stats.num_broken)
        return family

    def _precisions(self) -> Metric:
        family = GaugeMetricFamily(
            "ship_engine_precision",
            "1 for the precision of each engine's arithmetic",
            labels=["engine", "precision"],
        )
        for engine, (_, stats) in sorted(self._said.items()):
            family.add_metric([engine, stats.precision], 1.0)
        return family

    def _looks(self, now_s: float) -> Metric:
        family = _looks()
        for engine, (said_at_s, stats) in sorted(self._said.items()):
            if stats.catalog_age_s is not None:
                family.add_metric(["catalog", engine], stats.catalog_age_s + now_s - said_at_s)
        return family


def _drift(drifts: Sequence[Drift], num_alarms: int, num_dropped: int) -> Iterator[Metric]:
    for name, meaning, attribute in (
        ("alarm", "1 while a task has an alarm of drift that nobody has acknowledged", "is_alarming"),
        ("evidence", "Evidence of drift as a share of what raises an alarm", "evidence"),
        ("pictures", "Pictures of the champion that the watch for drift has seen", "num_seen"),
        ("unsure_share", "Share of the last 500 to 1,000 pictures that were answered unsure", "unsure"),
        ("far_share", "Share of them beyond the held-out pictures' 90th percentile of distance", "far"),
    ):
        by_task = GaugeMetricFamily(
            f"ship_drift_{name}", f"{meaning}; of the 50 tasks with the most evidence", labels=["task"]
        )
        for drift in drifts:
            value = getattr(drift, attribute)
            if value is not None:
                by_task.add_metric([drift.task], float(value))
        yield by_task
    yield GaugeMetricFamily(
        "ship_drift_alarms", "Tasks with an alarm of drift that nobody has acknowledged", value=num_alarms
    )
    yield CounterMetricFamily(
        "ship_drift_dropped", "Answers that the watch for drift had no room for", value=num_dropped
    )


def _broken() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "ship_broken_entries",
        "What is broken and concerns nothing else: tasks of the registry, entries of the catalog (of each "
        "engine), tokens",
        labels=["of", "engine"],
    )


def _looks() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "ship_last_look_seconds",
        "Since the last look that succeeded: at the registry, the catalog (of each engine), the tokens",
        labels=["of", "engine"],
    )


class TaskLabels:
    """Limited set of task labels; a task keeps its label, so that no counter ever goes down.

    Args:
        max_labels: Most tasks with a label of their own.
        min_asked: Requests before a task gets a label, so that tasks that are asked often come first.
    """

    def __init__(self, max_labels: int = 50, min_asked: int = 10) -> None:
        self._max_labels, self._min_asked = max_labels, min_asked
        self._labels: set[str] = set()
        self._asked: collections.Counter[str] = collections.Counter()

    def label(self, task: str) -> str:
        """Count one more request for a task; returns its label."""
        if task in self._labels:
            return task
        if len(self._labels) >= self._max_labels:
            return OTHERS
        self._asked[task] += 1
        if self._asked[task] < self._min_asked:
            return OTHERS
        del self._asked[task]
        self._labels.add(task)
        if len(self._labels) == self._max_labels:
            self._asked.clear()
        return task
