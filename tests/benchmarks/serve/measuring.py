"""Loads as all parts of the benchmark use them, and their cases in a report.

The clients share the cores with the endpoint: on a machine of its own all figures over HTTP would be higher.
"""

from collections.abc import Iterator
from typing import Any

from tests.benchmarks.harness import Case, Ratio, Report
from tests.benchmarks.serve.load import Load, Request, closed_loop, open_loop, zipf
from tests.benchmarks.serve.plant import ServePlant
from tests.benchmarks.serve.rig import make_pictures
from tests.benchmarks.serve.sizes import ServeSizes

__all__ = ["LEGEND", "SHARE", "add_case", "ask_closed", "ask_open", "warm_up"]

LEGEND = {
    "mix": "many tasks by Zipf's law against one",
    "engine": "answers a second over HTTP against the bare runtime, and an app that does nothing",
    "swap": "promotions under load: requests that failed, and replies that were mixed",
    "kill": "an ingress and an engine killed under load: requests that failed, seconds until two again",
    "overload": "five times as much as can be done: what is answered, and what memory it takes",
    "outage": "neither store nor MLflow for a while: what is in memory, and what is not",
    "start": "seconds until the endpoint answers, and memory of each of its processes",
    "soak": "load and promotions for long: growth of memory",
}
# Share of the endpoint's capacity: the load under which something is done to it.
SHARE = 0.5


def warm_up(plant: ServePlant, sizes: ServeSizes) -> Load:
    """A closed loop on the warm endpoint: its capacity."""
    ask_closed(plant, zipf(plant.tasks, make_pictures()), sizes, sizes.round_s / 2)
    return ask_closed(plant, zipf(plant.tasks, make_pictures()), sizes, sizes.round_s)


def ask_closed(plant: ServePlant, requests: Iterator[Request], sizes: ServeSizes, duration_s: float) -> Load:
    """A closed loop, some of whose requests must be answered."""
    load = closed_loop(
        plant.url, requests, num_clients=sizes.num_clients, duration_s=duration_s, patience_s=duration_s
    )
    assert load.seconds, f"no request was answered: {load.statuses}"
    return load


def ask_open(
    plant: ServePlant, requests: Iterator[Request], rate: float, duration_s: float, check: Any = None
) -> Load:
    """An open loop."""
    return open_loop(plant.url, requests, rate=rate, duration_s=duration_s, check=check)


def add_case(
    report: Report,
    sizes: ServeSizes,
    part: str,
    settings: dict[str, Any],
    ratios: list[Ratio],
    facts: dict[str, Any],
) -> None:
    """Add what a part found to the report."""
    report.add(
        Case(
            settings={"part": part, "backbone": sizes.backbone, **settings},
            rounds=sizes.rounds if part in ("mix", "engine") else 1,
            seconds={},
            ratios=ratios,
            facts=facts,
        )
    )
