"""What engines hold in memory, as Prometheus is told: by engine, each as it said last."""

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.serve.engine_api import ResidencyStats

__all__ = ["ResidencyMetrics"]

# An engine that nobody reached for so long is gone, or was given another name by a restart.
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
    "ship_resident_prompts": ("Prompts in memory", "num_resident"),
    "ship_resident_bytes": ("Device memory that prompts take", "resident_bytes"),
    "ship_catalog_age_seconds": ("Since the catalog was last seen to be current", _AGE),
}


class ResidencyMetrics(Collector):
    """A collector of ``prometheus_client``.

    Args:
        clock: Seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, ResidencyStats]] = {}

    def note(self, stats: ResidencyStats) -> None:
        """Keep what an engine said."""
        self._said[stats.replica] = self._clock(), stats

    def collect(self) -> Iterator[Metric]:
        """Called when the page is made."""
        now_s = self._clock()
        self._said = {name: said for name, said in self._said.items() if now_s - said[0] < _KEPT_S}
        for families, make in ((_COUNTERS, CounterMetricFamily), (_GAUGES, GaugeMetricFamily)):
            for name, (meaning, attribute) in families.items():
                family = make(name, meaning, labels=["engine"])
                for engine, (said_at_s, stats) in sorted(self._said.items()):
                    value = getattr(stats, attribute)
                    # Before the first catalog there is no age of it.
                    if value is not None:
                        # An age goes on while an engine says nothing.
                        since_s = now_s - said_at_s if attribute == _AGE else 0.0
                        family.add_metric([engine], value + since_s)
                yield family
