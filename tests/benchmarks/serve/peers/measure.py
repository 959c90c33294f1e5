"""Comparison of servers: the best settings of each by trying, then rounds with one server at a time."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.serve.launch.address import choose_port
from tests.benchmarks.harness import Case, Report, render
from tests.benchmarks.serve.load import closed_loop, open_loop
from tests.benchmarks.serve.peers.figures import (
    Figures,
    Round,
    choose_rates,
    find_ratios,
    medians,
    render_table,
)
from tests.benchmarks.serve.peers.knobs import Knobs, Launch, find_best
from tests.benchmarks.serve.peers.scene import Scene, open_scene
from tests.benchmarks.serve.peers.server import Server, ServerError, running, wait_until
from tests.benchmarks.serve.peers.systems import OURS, System, answers, find_systems, mix

__all__ = ["LEGEND", "PeerSizes", "measure_peers"]

LEGEND = {
    "ours": "`ship serve`, low ranks of rank 8 on qkv a task, as presets tune them",
    "fastapi": "FastAPI with a batching queue; timm with PEFT LoRA, mixed batches by `adapter_names`",
    "litserve": "LitServe with its batches; timm with PEFT LoRA, mixed batches by `adapter_names`",
    "ray": "Ray Serve with multiplexed models and its batches, each of one task: merged, or adapters of one "
    "backbone where merged models would take more than 2 GB",
    "one task": "the adapter is merged into the backbone of every server but ours",
}
# Tasks from which on ours has to be ahead.
GOAL_TASKS, GOAL = 64, 1.0
_WARM_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class PeerSizes:
    """Sizes of the comparison.

    Attributes:
        rounds: Rounds, each with a start of every server.
        seconds: Length of each load.
        num_clients: Clients of the closed loops.
        num_pictures: Pictures that are asked about.
        is_searched: Whether each server's settings are tried before.
    """

    rounds: int = 5
    seconds: float = 8.0
    num_clients: int = 32
    num_pictures: int = 4
    is_searched: bool = True

    @classmethod
    def quick(cls) -> "PeerSizes":
        """Small sizes that show whether everything runs."""
        return cls(rounds=1, seconds=1.0, num_clients=4, num_pictures=2, is_searched=False)

    def with_given(self, **given: Any) -> "PeerSizes":
        """Sizes that were given in place of these; None leaves one as it is."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def measure_peers(
    report: Report,
    backbone: str,
    num_tasks: int,
    sizes: PeerSizes,
    names: Sequence[str],
    options: Sequence[str] = (),
) -> None:
    """Add a case for one backbone and number of tasks to the report.

    Args:
        report: Report of the benchmark.
        backbone: Name of the backbone, see ``find_backbone``.
        num_tasks: Tasks of every server.
        sizes: Sizes.
        names: Servers.
        options: Options of ``ship serve`` besides.
    """
    load_average = round(os.getloadavg()[0], 1)
    with open_scene(backbone, num_tasks, sizes.num_pictures, is_published=OURS in names) as scene:
        systems, missing = find_systems(scene, names, options)
        report.skipped += missing
        chosen, tried = {}, {}
        for system in systems:
            chosen[system.name], tried[system.name] = _choose_knobs(system, scene, sizes)
        failed = [name for name, rates in tried.items() if not max(rates.values())]
        report.skipped += [f"{name}: it did not start, or answered wrongly; see above" for name in failed]
        systems = [system for system in systems if system.name not in failed]
        if not systems:
            return
        rates = choose_rates({system.name: max(tried[system.name].values()) for system in systems}, OURS)
        found = _measure_rounds(report, systems, scene, chosen, sizes, rates)
    middle = {name: medians(each) for name, each in found.items()}
    case = Case(
        settings={
            **{"part": "peers", "backbone": backbone, "tasks": num_tasks, "clients": sizes.num_clients},
            **{"seconds": sizes.seconds, "load average before": load_average},
            **{f"a second, {name}": round(rate, 1) for name, rate in rates.items()},
        },
        rounds=sizes.rounds,
        seconds={},
        ratios=find_ratios(found, OURS, GOAL if num_tasks >= GOAL_TASKS else None),
        facts={
            name: {"median": middle[name], "settings": asdict(chosen[name]), "tried": tried[name]}
            | {"rounds": found[name]}
            for name in found
        },
    )
    _add(report, case, render_table(f"{backbone}, {num_tasks} tasks", middle))


def _measure_rounds(
    report: Report,
    systems: Sequence[System],
    scene: Scene,
    chosen: Mapping[str, Knobs],
    sizes: PeerSizes,
    rates: Mapping[str, float],
) -> dict[str, list[Figures]]:
    """Figures of each round by server, each round beginning with another one.

    A server that does not start again is left out of the case.
    """
    found: dict[str, list[Figures]] = {system.name: [] for system in systems}
    for number in range(sizes.rounds):
        first = number % len(systems)
        for system in [*systems[first:], *systems[:first]]:
            if system.name not in found:
                continue
            try:
                loads = _run_round(system, scene, chosen[system.name], sizes, rates, seed=number)
            except ServerError as error:
                report.skipped.append(f"{system.name}: it did not start in round {number + 1}: {error}")
                del found[system.name]
            else:
                found[system.name].append(loads.figures())
    return found


def _add(report: Report, case: Case, table: str) -> None:
    """Keep a case, and print a table in place of its rounds."""
    report.cases.append(case)
    shown = {f"{name}, settings": facts["settings"] for name, facts in case.facts.items()}
    print(render(replace(case, facts=shown)), table, sep="\n", file=sys.stderr, flush=True)


def _choose_knobs(system: System, scene: Scene, sizes: PeerSizes) -> tuple[Knobs, dict[str, float]]:
    def rate(knobs: Knobs) -> float:
        try:
            with _serving(system, scene, knobs, sizes) as (_, url):
                load = closed_loop(
                    url, mix(system, scene), num_clients=sizes.num_clients, duration_s=sizes.seconds
                )
        except ServerError as error:
            print(f"{system.name} with {knobs} did not start: {error}", file=sys.stderr, flush=True)
            return 0.0
        if load.mixed:
            print(
                f"{system.name} with {knobs} answered wrongly: {load.mixed[0]}", file=sys.stderr, flush=True
            )
            return 0.0
        print(f"{system.name}: {load.rate:.1f} answers a second with {knobs}", file=sys.stderr, flush=True)
        return load.rate

    return find_best(system.start, system.steps if sizes.is_searched else (), rate)


def _run_round(
    system: System, scene: Scene, knobs: Knobs, sizes: PeerSizes, rates: Mapping[str, float], seed: int
) -> Round:
    with _serving(system, scene, knobs, sizes) as (server, url):
        before_s = server.cpu_s()
        closed = closed_loop(
            url, mix(system, scene, seed), num_clients=sizes.num_clients, duration_s=sizes.seconds
        )
        cpu_s = server.cpu_s() - before_s
        opened = {
            name: open_loop(url, mix(system, scene, seed), rate=rate, duration_s=sizes.seconds, seed=seed)
            for name, rate in rates.items()
        }
        memory_bytes = server.memory_bytes()
    return Round(closed=closed, opened=opened, memory_bytes=memory_bytes, cpu_s=cpu_s)


@contextmanager
def _serving(system: System, scene: Scene, knobs: Knobs, sizes: PeerSizes) -> Iterator[tuple[Server, str]]:
    """A warm server that has answered for every task."""
    launch = Launch(folder=str(scene.folder), tasks=scene.tasks, port=choose_port("127.0.0.1"), knobs=knobs)
    url, log = f"http://127.0.0.1:{launch.port}", scene.folder / f"{system.name}.log"
    with running(system.command(launch), system.environment(launch), log) as server:
        first_of_task = [system.requests[task, scene.contents[0]] for task in scene.tasks]
        wait_until(lambda: answers(url, first_of_task[0]), server, log)
        with ThreadPoolExecutor(4) as pool:
            if not all(pool.map(lambda request: answers(url, request), first_of_task)):
                raise ServerError(f"not every task was answered: {log.read_text(errors='replace')[-3000:]}")
        warm_s = _WARM_SHARE * sizes.seconds
        closed_loop(url, mix(system, scene), num_clients=sizes.num_clients, duration_s=warm_s)
        yield server, url
