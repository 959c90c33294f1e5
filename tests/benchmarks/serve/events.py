"""Events under load: promotions, a killed engine, overload, an outage, and hours of all that."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGKILL

from tests.benchmarks.harness import Report, paired_ratio
from tests.benchmarks.serve.load import open_loop, zipf
from tests.benchmarks.serve.measuring import SHARE, add_case, ask_closed, ask_open, warm_up
from tests.benchmarks.serve.outage import live_through_outage
from tests.benchmarks.serve.plant import open_plant, replica_pids, wait_for_replicas
from tests.benchmarks.serve.rig import Background, make_pictures, memory_bytes, promotions, read_counters
from tests.benchmarks.serve.sizes import ServeSizes

__all__ = ["measure_kill", "measure_outage", "measure_overload", "measure_soak", "measure_swap"]

GOAL_OVERLOAD, GOAL_SOAK = 0.9, 1 / 1.05
PROMOTIONS_A_SECOND = 100 / 60


def measure_swap(report: Report, sizes: ServeSizes, num_promotions: int) -> None:
    """Promotions in MLflow under an open loop; labels, version and digest of each reply are compared."""
    with open_plant(sizes.backbone, sizes.num_tasks) as plant:
        rate = SHARE * warm_up(plant, sizes).rate
        promoting = promotions(plant, num_promotions, sizes.long_s)
        before = read_counters(plant)
        with promoting as promoted:
            load = ask_open(plant, zipf(plant.tasks, make_pictures()), rate, sizes.long_s, plant.is_whole)
        # The last one has five seconds to arrive.
        time.sleep(5.0)
        facts = {
            **load.facts(),
            "promotions": len(promoted),
            "failed": load.num_failed,
            **_differences(before, read_counters(plant)),
        }
    add_case(report, sizes, "swap", {"open loop, a second": round(rate, 1)}, [], facts)


def measure_kill(report: Report, sizes: ServeSizes) -> None:
    """``kill -9`` of one of two ingresses, then of one of two engines, while versions are promoted.

    Under an open loop whose clients ask again for up to 10 s.
    """
    with open_plant(sizes.backbone, sizes.num_tasks, num_replicas=2, num_ingresses=2) as plant:
        rate = SHARE * warm_up(plant, sizes).rate

        def kill() -> dict[str, float]:
            seconds = {}
            for part in ("Ingress", "Engine"):
                time.sleep(sizes.long_s / 4)
                pid = replica_pids(f"ServeReplica:ship:{part}")[0]
                os.kill(pid, SIGKILL)
                seconds[part] = round(wait_for_replicas(2, 120.0, gone=pid, deployment=part), 1)
            return seconds

        promoting = promotions(plant, round(PROMOTIONS_A_SECOND * sizes.long_s), sizes.long_s)
        with promoting as promoted, ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill)
            load = open_loop(
                plant.url,
                zipf(plant.tasks, make_pictures()),
                rate=rate,
                duration_s=sizes.long_s,
                check=plant.is_whole,
                patience_s=10.0,
            )
            seconds = killing.result()
    facts = {
        **load.facts(),
        "promotions": len(promoted),
        "failed": load.num_failed,
        "seconds until two ingresses answer": seconds["Ingress"],
        "seconds until two engines answer": seconds["Engine"],
    }
    add_case(report, sizes, "kill", {"open loop, a second": round(rate, 1)}, [], facts)


def measure_overload(report: Report, sizes: ServeSizes) -> None:
    """An open loop of five times the endpoint's capacity.

    Its answers are compared with those of closed loops before and after it, for the capacity of a shared
    machine changes from minute to minute.
    """
    with open_plant(sizes.backbone, sizes.num_tasks) as plant:
        capacity = [warm_up(plant, sizes).rate]
        rate = 5.0 * capacity[0]
        before = memory_bytes()
        with Background(memory_bytes, 0.5) as seen:
            load = ask_open(plant, zipf(plant.tasks, make_pictures()), rate, sizes.long_s)
        peak = max(seen, default=before)
        capacity.append(ask_closed(plant, zipf(plant.tasks, make_pictures()), sizes, sizes.round_s).rate)
    goodput = load.num_answered_within(sizes.long_s) / sizes.long_s
    add_case(
        report,
        sizes,
        "overload",
        {"open loop, a second": round(rate, 1)},
        [paired_ratio("goodput", "capacity", [goodput, goodput], capacity, GOAL_OVERLOAD)],
        {
            **load.facts(),
            "generator behind at worst, s": round(load.late_s, 3),
            "MiB before": before >> 20,
            "MiB at most": peak >> 20,
            "closed loop before and after, answers a second": [round(speed, 1) for speed in capacity],
        },
    )


def measure_outage(report: Report, sizes: ServeSizes) -> None:
    """Store and MLflow frozen under an open loop on what is in memory; see ``live_through_outage``."""
    rate, load, facts = live_through_outage(
        sizes.backbone,
        sizes.num_tasks,
        lambda plant: SHARE * warm_up(plant, sizes).rate,
        sizes.long_s,
    )
    settings = {"open loop, a second": round(rate, 1), "seconds": sizes.long_s}
    add_case(report, sizes, "outage", settings, [], {**load.facts(), "failed": load.num_failed, **facts})


def measure_soak(report: Report, sizes: ServeSizes) -> None:
    """Load and promotions for long, and the memory of all of the endpoint's processes.

    The first tenth is not counted: memory settles first.
    """
    with open_plant(sizes.backbone, sizes.num_tasks) as plant:
        rate = SHARE * warm_up(plant, sizes).rate
        requests = zipf(plant.tasks, make_pictures())
        promoting = promotions(plant, max(1, int(sizes.long_s / 2)), 1.1 * sizes.long_s)
        counted = read_counters(plant)
        with promoting:
            ask_open(plant, requests, rate, sizes.long_s / 10)
            before = memory_bytes()
            load = ask_open(plant, requests, rate, sizes.long_s, plant.is_whole)
            after = memory_bytes()
        facts = _differences(counted, read_counters(plant))
    add_case(
        report,
        sizes,
        "soak",
        {"open loop, a second": round(rate, 1), "seconds": sizes.long_s},
        [paired_ratio("1 / memory after", "before", [1.0 / after], [1.0 / before], GOAL_SOAK)],
        {
            **load.facts(),
            "failed": load.num_failed,
            "MiB before": before >> 20,
            "MiB after": after >> 20,
            **facts,
        },
    )


def _differences(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}
