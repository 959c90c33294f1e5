"""State of an endpoint as it says itself: readiness, metrics, and the tasks of its catalog."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.client import Client, EndpointError, ServedTask

__all__ = ["EndpointState", "Samples", "ask_endpoint"]

_Value = TypeVar("_Value")


class Samples:
    """Samples of a page of metrics.

    Args:
        text: The page, in Prometheus' text format; one that cannot be read has no samples.
    """

    def __init__(self, text: str = "") -> None:
        self._by_name: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._by_name[sample.name].append((sample.labels, sample.value))

    def by(self, name: str, *labels: str, **only: str) -> dict[tuple[str, ...], float]:
        """Sums of a metric by the values of labels; over all that have the values ``only``."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for found, value in self._by_name.get(name, ()):
            if all(found.get(label) == wanted for label, wanted in only.items()):
                sums[tuple(found.get(label, "") for label in labels)] += value
        return dict(sums)

    def total(self, name: str, **only: str) -> float | None:
        """Sum of a metric; None if there is none."""
        return self.by(name, **only).get(())

    def quantile(self, name: str, share: float, **only: str) -> float | None:
        """Quantile of a histogram, linear within its buckets; None without an observation."""
        buckets = sorted(
            (math.inf if text == "+Inf" else float(text), count)
            for (text,), count in self.by(f"{name}_bucket", "le", **only).items()
        )
        wanted = share * buckets[-1][1] if buckets else 0.0
        low, before = 0.0, 0.0
        for high, count in buckets if wanted else ():
            if count >= wanted:
                return low if math.isinf(high) else low + (high - low) * (wanted - before) / (count - before)
            low, before = high, count
        return None


@dataclass(frozen=True, kw_only=True)
class EndpointState:
    """What an endpoint said.

    Attributes:
        url: Its URL, without secrets.
        readiness: What ``/readyz`` says; None if there was no answer.
        samples: Its metrics; empty if it refused them.
        tasks: Tasks of its catalog, by name.
        problems: What it did not say, and why.
    """

    url: str
    readiness: Mapping[str, Any] | None = None
    samples: Samples = field(default_factory=Samples)
    tasks: Mapping[str, ServedTask] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def traffic(self) -> dict[str, dict[str, float]]:
        """Answers since the endpoint's start by task, and how many of them were unsure.

        The endpoint counts the tasks that are asked most; the others are one, ``other``.
        """
        found = {
            task: {"answers": count, "unsure": 0.0}
            for (task,), count in self.samples.by("ship_answers_total", "task").items()
        }
        for (task, decision), count in self.samples.by("ship_decisions_total", "task", "decision").items():
            if task in found and decision.startswith("unsure"):
                found[task]["unsure"] += count
        return found

    def agreement(self) -> dict[str, dict[str, float]]:
        """Comparisons with the shadow since the endpoint's start by task, and how many agreed."""
        agreed = self.samples.by("ship_shadow_agreed_total", "task")
        compared = self.samples.by("ship_shadow_compared_total", "task").items()
        return {task: {"compared": count, "agreed": agreed.get((task,), 0.0)} for (task,), count in compared}


def ask_endpoint(client: Client) -> EndpointState:
    """Ask an endpoint for all of it; nothing more is asked of one that does not answer."""
    problems: list[str] = []

    def try_to(ask: Callable[[], _Value], default: _Value) -> _Value:
        try:
            return ask()
        except EndpointError as error:
            problems.append(str(error))
        except ValueError as error:
            problems.append(f"its metrics cannot be read: {error}")
        return default

    readiness = try_to(client.readiness, None)
    if readiness is None:
        return EndpointState(url=str(client.url), problems=tuple(problems))
    tasks: Iterable[ServedTask] = try_to(client.tasks, [])
    samples = try_to(lambda: Samples(client.metrics()), Samples())
    return EndpointState(
        url=str(client.url),
        readiness=readiness,
        samples=samples,
        tasks={task.task: task for task in tasks},
        problems=tuple(problems),
    )
