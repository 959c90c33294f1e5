"""Comparisons of throughput: many tasks with one task, and the endpoint with the bare runtime."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.harness import Report, paired_ratio
from tests.benchmarks.serve.cpu import cpu_seconds, milliseconds_each
from tests.benchmarks.serve.load import Load, Request, batches, closed_loop, zipf
from tests.benchmarks.serve.measuring import SHARE, add_case, ask_closed, ask_open, warm_up
from tests.benchmarks.serve.plant import ServePlant, open_plant
from tests.benchmarks.serve.rig import BareRuntime, deploy_nothing, make_pictures
from tests.benchmarks.serve.sizes import ServeSizes
from tests.benchmarks.synthetic import VIT_B

__all__ = ["measure_engine", "measure_mix"]

GOAL_MIX, GOAL_MIX_P99 = 0.95, 1 / 1.5
# Of the bare runtime by one image a request, in batches, and of the app that does nothing.
_GOALS = {VIT_B: (0.93, None, None), "bundled": (0.35, 0.6, 0.75)}
# Images of a batch request, and batch requests at a time.
_BATCH_IMAGES, _BATCH_CLIENTS = 32, 2


def measure_mix(report: Report, sizes: ServeSizes) -> None:
    """Many tasks by Zipf's law beside one task, on the same endpoint, interleaved.

    Throughput by closed loops; p99 in an open loop at half of it.
    """
    with open_plant(sizes.backbone, sizes.num_tasks) as plant:
        rows = {"one task": zipf(plant.tasks[:1], make_pictures()), "mix": zipf(plant.tasks, make_pictures())}
        warm_up(plant, sizes)
        closed = _interleave(
            rows, sizes.rounds, lambda requests: ask_closed(plant, requests, sizes, sizes.round_s)
        )
        rate = SHARE * min(load.rate for loads in closed.values() for load in loads)
        opened = _interleave(
            rows, sizes.rounds, lambda requests: ask_open(plant, requests, rate, sizes.round_s)
        )
    speeds = {name: [load.rate for load in loads] for name, loads in closed.items()}
    p99s = {name: [1.0 / load.percentile_s(0.99) for load in loads] for name, loads in opened.items()}
    add_case(
        report,
        sizes,
        "mix",
        {"tasks": sizes.num_tasks, "clients": sizes.num_clients, "open loop, a second": round(rate, 1)},
        [
            paired_ratio("throughput, mix", "one task", speeds["mix"], speeds["one task"], GOAL_MIX),
            paired_ratio("1 / p99, mix", "one task", p99s["mix"], p99s["one task"], GOAL_MIX_P99),
        ],
        {f"{name}, closed": loads[-1].facts() for name, loads in closed.items()}
        | {f"{name}, open": loads[-1].facts() for name, loads in opened.items()},
    )


def measure_engine(report: Report, sizes: ServeSizes) -> None:
    """Throughput over HTTP beside the bare runtime, at full batches on as many threads.

    Beside it a Ray Serve app that only reads the body and says ``ok``, by Ray Serve's own proxy and, if it is
    the ingress, by HAProxy; and the batch endpoint.
    """
    with open_plant(sizes.backbone, 8) as plant:
        nothing_urls = deploy_nothing(plant)
        bare = BareRuntime(plant)
        warm_up(plant, sizes)
        bare.rate(sizes.round_s / 3)
        seen = _Seen()
        pictures, load, num_refused = make_pictures(_BATCH_IMAGES), Load(), 0
        for _ in range(sizes.rounds):
            requests = zipf(plant.tasks, make_pictures())
            with seen.row("http") as row:
                load = ask_closed(plant, requests, sizes, sizes.round_s)
                row.add(load.rate, len(load.seconds))
            with seen.row("batch") as row:
                rate, refused = _measure_batches(plant, pictures, sizes.round_s)
                row.add(rate, int(rate * sizes.round_s))
            num_refused += refused
            with seen.row("bare") as row:
                rate = bare.rate(sizes.round_s)
                row.add(rate, int(rate * sizes.round_s))
            for name, url in nothing_urls.items():
                with seen.row(name) as row:
                    nothing = closed_loop(
                        url, requests, num_clients=sizes.num_clients, duration_s=sizes.round_s / 2
                    )
                    row.add(nothing.rate, len(nothing.seconds))
    http, batch, nothing_goal = _GOALS.get(sizes.backbone, (None, None, None))
    add_case(
        report,
        sizes,
        "engine",
        {"clients": sizes.num_clients},
        [
            paired_ratio("http", "bare", seen.rates["http"], seen.rates["bare"], http),
            paired_ratio("batch", "bare", seen.rates["batch"], seen.rates["bare"], batch),
            *(
                paired_ratio("http", name, seen.rates["http"], seen.rates[name], nothing_goal)
                for name in nothing_urls
            ),
        ],
        {row: f"{statistics.median(values):.1f} images a second" for row, values in seen.rates.items()}
        | {f"{row}, CPU ms each, last round": spent for row, spent in seen.cpu.items()}
        | {"http, last round": load.facts(), "images of batches that were refused": num_refused},
    )


class _Seen:
    """Rates of the rows of a comparison, and the CPU time of each kind of process that an image took."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = {}
        self.cpu: dict[str, dict[str, float]] = {}

    @contextmanager
    def row(self, name: str) -> Iterator["_Row"]:
        """A measurement, whose result the block adds."""
        before, row = cpu_seconds(), _Row()
        yield row
        self.rates.setdefault(name, []).append(row.rate)
        self.cpu[name] = milliseconds_each(before, row.number)


@dataclass
class _Row:
    """One measurement: images a second, and their number."""

    rate: float = 0.0
    number: int = 0

    def add(self, rate: float, number: int) -> None:
        self.rate, self.number = rate, number


def _measure_batches(plant: ServePlant, pictures: Sequence[bytes], duration_s: float) -> tuple[float, int]:
    """Images a second that the batch endpoint answers, and how many it had no room for."""
    num: Counter[bool] = Counter()

    def count(reply: Mapping[str, Any], _: Mapping[str, str]) -> bool:
        num.update("error" in item for item in reply["items"])
        return True

    load = closed_loop(
        plant.url,
        batches(plant.tasks, pictures),
        num_clients=_BATCH_CLIENTS,
        duration_s=duration_s,
        check=count,
        patience_s=duration_s,
    )
    assert num[False], (load.statuses, load.refusals)
    return num[False] / load.took_s, num[True]


def _interleave(
    rows: dict[str, Iterator[Request]], rounds: int, measure: Callable[[Iterator[Request]], Load]
) -> dict[str, list[Load]]:
    found: dict[str, list[Load]] = {name: [] for name in rows}
    names = list(rows)
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            found[name].append(measure(rows[name]))
    return found
