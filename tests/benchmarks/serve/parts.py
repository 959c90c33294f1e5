"""The endpoint under load, over HTTP on loopback, on a store, an MLflow and a Ray of its own. Parts:

- ``mix``: many tasks by Zipf's law against one task, the same endpoint, interleaved. *Throughput* by clients
  that ask one thing after another; *p99* in an open loop at half of that.
- ``engine``: throughput over HTTP against the bare runtime in this process on as many threads, at the rows of
  a full batch; beside it a Ray Serve app that only reads the body and says ``ok``, and the batch endpoint at
  32 images a request.
- ``swap``: promotions in MLflow under an open loop, each reply's labels, version and digest being compared.
- ``kill``: ``kill -9`` of one of two engines under an open loop whose clients ask again for up to 10 s.
- ``overload``: five times what the endpoint can do in an open loop; its answers against those of closed loops
  before and after it, for what a shared machine can do changes from minute to minute.
- ``outage``: store and MLflow frozen, twice as long as other loads take, under an open loop on what is in
  memory; a version that is not is asked for every few seconds.
- ``soak``: load and promotions for long, and the memory of all of the endpoint's processes.

The clients share the cores with the endpoint, so everything over HTTP is told for less than a machine of its
own would do.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from signal import SIGKILL
from typing import Any

from tests.benchmarks.harness import Case, Ratio, Report
from tests.benchmarks.serve.load import Load, Request, batches, closed_loop, open_loop, zipf
from tests.benchmarks.serve.outage import live_through_outage
from tests.benchmarks.serve.plant import ServePlant, open_plant, replica_pids, wait_for_replicas
from tests.benchmarks.serve.rig import (
    Background,
    BareRuntime,
    deploy_nothing,
    make_pictures,
    memory_bytes,
    promotions,
    read_counters,
)

__all__ = ["LEGEND", "PARTS", "ServeSizes", "run"]

LEGEND = {
    "mix": "many tasks by Zipf's law against one",
    "engine": "answers a second over HTTP against the bare runtime, and an app that does nothing",
    "swap": "promotions under load: requests that failed, and replies that were mixed",
    "kill": "an engine killed under load: requests that failed, and seconds until there are two again",
    "overload": "five times as much as can be done: what is answered, and what memory it takes",
    "outage": "neither store nor MLflow for a while: what is in memory, and what is not",
    "soak": "load and promotions for long: growth of memory",
}
GOAL_MIX, GOAL_MIX_P99, GOAL_ENGINE, GOAL_OVERLOAD, GOAL_SOAK = 0.95, 1 / 1.5, 0.9, 0.9, 1 / 1.05
# Of what the endpoint can do: the load under which something is done to it.
_SHARE = 0.5
# Of the batch endpoint: images of a request, and requests at a time.
_BATCH_IMAGES, _BATCH_CLIENTS = 32, 2


@dataclass(frozen=True, kw_only=True)
class ServeSizes:
    """How much of what.

    Attributes:
        backbone: Of all parts but ``engine``.
        engines: Backbones of ``engine``.
        num_tasks: That are served.
        num_clients: Of closed loops.
        rounds: Of interleaved comparisons.
        round_s: Of each.
        long_s: Of loads under which something happens.
        soak_s: Of the soak.
        num_promotions: During ``swap``, at regular times.
    """

    backbone: str = "bundled"
    engines: tuple[str, ...] = ("bundled", "vit_base_patch16_224")
    num_tasks: int = 500
    num_clients: int = 32
    rounds: int = 5
    round_s: float = 6.0
    long_s: float = 60.0
    soak_s: float = 600.0
    num_promotions: int = 100

    @classmethod
    def quick(cls) -> "ServeSizes":
        """Does it run?"""
        return cls(
            backbone="tiny",
            engines=("tiny",),
            num_tasks=6,
            num_clients=4,
            rounds=2,
            round_s=1.0,
            long_s=6.0,
            soak_s=6.0,
            num_promotions=4,
        )


def run(report: Report, *, sizes: ServeSizes, parts: Sequence[str]) -> None:
    """Run the parts in order."""
    for part in parts:
        PARTS[part](report, sizes)


def measure_mix(report: Report, sizes: ServeSizes) -> None:
    """See ``mix`` above."""
    with open_plant(sizes.backbone, sizes.num_tasks) as plant:
        rows = {"one task": zipf(plant.tasks[:1], make_pictures()), "mix": zipf(plant.tasks, make_pictures())}
        _warm_up(plant, sizes)
        closed = _interleave(
            rows, sizes.rounds, lambda requests: _closed(plant, requests, sizes, sizes.round_s)
        )
        rate = _SHARE * min(load.rate for loads in closed.values() for load in loads)
        opened = _interleave(rows, sizes.rounds, lambda requests: _open(plant, requests, rate, sizes.round_s))
    speeds = {name: [load.rate for load in loads] for name, loads in closed.items()}
    p99s = {name: [1.0 / load.percentile_s(0.99) for load in loads] for name, loads in opened.items()}
    _add(
        report,
        sizes,
        "mix",
        {"tasks": sizes.num_tasks, "clients": sizes.num_clients, "open loop, a second": round(rate, 1)},
        [
            _ratio("throughput, mix", "one task", speeds["mix"], speeds["one task"], GOAL_MIX),
            _ratio("1 / p99, mix", "one task", p99s["mix"], p99s["one task"], GOAL_MIX_P99),
        ],
        {f"{name}, closed": loads[-1].facts() for name, loads in closed.items()}
        | {f"{name}, open": loads[-1].facts() for name, loads in opened.items()},
    )


def measure_engine(report: Report, sizes: ServeSizes) -> None:
    """See ``engine`` above."""
    for name in sizes.engines:
        with open_plant(name, 8) as plant:
            nothing_url = deploy_nothing(plant)
            bare = BareRuntime(plant)
            _warm_up(plant, sizes)
            bare.rate(sizes.round_s / 3)
            rates: dict[str, list[float]] = {"http": [], "batch": [], "bare": [], "nothing": []}
            pictures, load, num_refused = make_pictures(_BATCH_IMAGES), Load(), 0
            for _ in range(sizes.rounds):
                requests = zipf(plant.tasks, make_pictures())
                load = _closed(plant, requests, sizes, sizes.round_s)
                rates["http"].append(load.rate)
                rate, refused = _measure_batches(plant, pictures, sizes.round_s)
                rates["batch"].append(rate)
                num_refused += refused
                rates["bare"].append(bare.rate(sizes.round_s))
                nothing = closed_loop(
                    nothing_url, requests, num_clients=sizes.num_clients, duration_s=sizes.round_s / 2
                )
                rates["nothing"].append(nothing.rate)
        goal = GOAL_ENGINE if name.startswith("vit_base") else None
        _add(
            report,
            replace(sizes, backbone=name),
            "engine",
            {"clients": sizes.num_clients},
            [
                _ratio("http", "bare", rates["http"], rates["bare"], goal),
                _ratio("batch", "bare", rates["batch"], rates["bare"], None),
                _ratio("http", "nothing", rates["http"], rates["nothing"], None),
            ],
            {row: f"{statistics.median(values):.1f} images a second" for row, values in rates.items()}
            | {"http, last round": load.facts(), "images of batches that were refused": num_refused},
        )


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


def measure_swap(report: Report, sizes: ServeSizes) -> None:
    """See ``swap`` above."""
    with open_plant(sizes.backbone, min(sizes.num_tasks, 20)) as plant:
        rate = _SHARE * _warm_up(plant, sizes).rate
        promoting = promotions(plant, sizes.num_promotions, sizes.long_s)
        before = read_counters(plant)
        with promoting as promoted:
            load = _open(plant, zipf(plant.tasks, make_pictures()), rate, sizes.long_s, plant.is_whole)
        # The last one has five seconds to arrive.
        time.sleep(5.0)
        facts = {
            **load.facts(),
            "promotions": len(promoted),
            "failed": load.num_failed,
            **_differences(before, read_counters(plant)),
        }
    _add(report, sizes, "swap", {"open loop, a second": round(rate, 1)}, [], facts)


def measure_kill(report: Report, sizes: ServeSizes) -> None:
    """See ``kill`` above."""
    with open_plant(sizes.backbone, min(sizes.num_tasks, 20), num_replicas=2) as plant:
        rate = _SHARE * _warm_up(plant, sizes).rate

        def kill() -> float:
            time.sleep(sizes.long_s / 3)
            pid = replica_pids()[0]
            os.kill(pid, SIGKILL)
            return wait_for_replicas(2, 120.0, gone=pid)

        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill)
            load = open_loop(
                plant.url,
                zipf(plant.tasks, make_pictures()),
                rate=rate,
                duration_s=sizes.long_s,
                check=plant.is_whole,
                patience_s=10.0,
            )
            seconds = round(killing.result(), 1)
    facts = {**load.facts(), "failed": load.num_failed, "seconds until two engines answer": seconds}
    _add(report, sizes, "kill", {"open loop, a second": round(rate, 1)}, [], facts)


def measure_overload(report: Report, sizes: ServeSizes) -> None:
    """See ``overload`` above."""
    with open_plant(sizes.backbone, min(sizes.num_tasks, 20)) as plant:
        capacity = [_warm_up(plant, sizes).rate]
        rate = 5.0 * capacity[0]
        before = memory_bytes()
        with Background(memory_bytes, 0.5) as seen:
            load = _open(plant, zipf(plant.tasks, make_pictures()), rate, sizes.long_s)
        peak = max(seen, default=before)
        capacity.append(_closed(plant, zipf(plant.tasks, make_pictures()), sizes, sizes.round_s).rate)
    goodput = load.num_answered_within(sizes.long_s) / sizes.long_s
    _add(
        report,
        sizes,
        "overload",
        {"open loop, a second": round(rate, 1)},
        [_ratio("goodput", "capacity", [goodput, goodput], capacity, GOAL_OVERLOAD)],
        {
            **load.facts(),
            "generator behind at worst, s": round(load.late_s, 3),
            "MiB before": before >> 20,
            "MiB at most": peak >> 20,
            "closed loop before and after, answers a second": [round(speed, 1) for speed in capacity],
        },
    )


def measure_outage(report: Report, sizes: ServeSizes) -> None:
    """See ``outage`` above."""
    rate, load, facts = live_through_outage(
        sizes.backbone,
        min(sizes.num_tasks, 20),
        lambda plant: _SHARE * _warm_up(plant, sizes).rate,
        2.0 * sizes.long_s,
    )
    settings = {"open loop, a second": round(rate, 1), "seconds": 2.0 * sizes.long_s}
    _add(report, sizes, "outage", settings, [], {**load.facts(), "failed": load.num_failed, **facts})


def measure_soak(report: Report, sizes: ServeSizes) -> None:
    """See ``soak`` above. The first tenth is not counted: memory settles first."""
    with open_plant(sizes.backbone, min(sizes.num_tasks, 20)) as plant:
        rate = _SHARE * _warm_up(plant, sizes).rate
        requests = zipf(plant.tasks, make_pictures())
        promoting = promotions(plant, max(1, int(sizes.soak_s / 2)), 1.1 * sizes.soak_s)
        counted = read_counters(plant)
        with promoting:
            _open(plant, requests, rate, sizes.soak_s / 10)
            before = memory_bytes()
            load = _open(plant, requests, rate, sizes.soak_s, plant.is_whole)
            after = memory_bytes()
        facts = _differences(counted, read_counters(plant))
    _add(
        report,
        sizes,
        "soak",
        {"open loop, a second": round(rate, 1), "seconds": sizes.soak_s},
        [_ratio("1 / memory after", "before", [1.0 / after], [1.0 / before], GOAL_SOAK)],
        {
            **load.facts(),
            "failed": load.num_failed,
            "MiB before": before >> 20,
            "MiB after": after >> 20,
            **facts,
        },
    )


PARTS: dict[str, Callable[[Report, ServeSizes], None]] = {
    "mix": measure_mix,
    "engine": measure_engine,
    "swap": measure_swap,
    "kill": measure_kill,
    "overload": measure_overload,
    "outage": measure_outage,
    "soak": measure_soak,
}


def _warm_up(plant: ServePlant, sizes: ServeSizes) -> Load:
    """What the endpoint can do, once it is warm."""
    _closed(plant, zipf(plant.tasks, make_pictures()), sizes, sizes.round_s / 2)
    return _closed(plant, zipf(plant.tasks, make_pictures()), sizes, sizes.round_s)


def _closed(plant: ServePlant, requests: Iterator[Request], sizes: ServeSizes, duration_s: float) -> Load:
    load = closed_loop(
        plant.url,
        requests,
        num_clients=sizes.num_clients,
        duration_s=duration_s,
        patience_s=duration_s,
    )
    assert load.seconds, f"nothing was answered: {load.statuses}"
    return load


def _open(
    plant: ServePlant, requests: Iterator[Request], rate: float, duration_s: float, check: Any = None
) -> Load:
    return open_loop(plant.url, requests, rate=rate, duration_s=duration_s, check=check)


def _differences(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def _interleave(
    rows: dict[str, Iterator[Request]], rounds: int, measure: Callable[[Iterator[Request]], Load]
) -> dict[str, list[Load]]:
    found: dict[str, list[Load]] = {name: [] for name in rows}
    names = list(rows)
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            found[name].append(measure(rows[name]))
    return found


def _ratio(of: str, against: str, ours: list[float], theirs: list[float], goal: float | None) -> Ratio:
    paired = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(paired, n=4, method="inclusive") if len(paired) > 1 else paired * 3
    return Ratio(of=of, against=against, speed=statistics.median(paired), low=low, high=high, goal=goal)


def _add(
    report: Report,
    sizes: ServeSizes,
    part: str,
    settings: dict[str, Any],
    ratios: list[Ratio],
    facts: dict[str, Any],
) -> None:
    report.add(
        Case(
            settings={"part": part, "backbone": sizes.backbone, **settings},
            rounds=sizes.rounds if part in ("mix", "engine") else 1,
            seconds={},
            ratios=ratios,
            facts=facts,
        )
    )
