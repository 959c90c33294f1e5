"""The watch for drift: false alarms of steady tasks, and pictures until a shift is found.

Simulated tasks have classes, confidences and distances of their own; real ones are tuned on the bundled
backbone, and their test pictures are answered by the runtime as they are, and changed as a line changes them.
A stream draws from the answers at random, or each picture several times over: neighbours that are alike.
"""

import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from ship.evaluation.drift import Observation, Reference, Watch

__all__ = ["drift"]

_BEFORE, _AFTER = 1_000, 1_000
_GOAL = 200
_SAME = "as before"


@click.command()
@click.option("--tasks", default=50, show_default=True, type=click.IntRange(min=1), help="Simulated tasks.")
@click.option("--pictures", default=10_000, show_default=True, type=click.IntRange(min=1), help="Of each.")
@click.option("--seed", default=0, show_default=True)
@click.option("--real", multiple=True, help="Also this task of the accuracy benchmark, tuned; repeatable.")
@click.option("--steps", default=60, show_default=True, help="Steps of each tuning.")
def drift(tasks: int, pictures: int, seed: int, real: tuple[str, ...], steps: int) -> None:
    """False alarms of steady tasks and delays of alarms, simulated and on real scores, as JSON.

    \b
    Examples:
      python -m tests.benchmarks drift
      python -m tests.benchmarks drift --real digits --real brick --real gravel
    """
    found: dict[str, Any] = {"simulated": _simulate(tasks, pictures, random.Random(seed))}
    if real:
        found["real"] = {name: _measure_real(name, real, steps, random.Random(seed)) for name in real}
    click.echo(json.dumps(found, indent=2))


class _Task:
    """A simulated task: its mix of classes, how sure it is, and how its distances vary."""

    def __init__(self, rng: random.Random) -> None:
        self.num_held_out = rng.choice([40, 60, 100, 200, 400])
        num_classes = rng.choice([2, 2, 2, 3, 5, 12])
        weights = [rng.uniform(0.2, 1.0) for _ in range(num_classes)]
        self.weights = [weight / sum(weights) for weight in weights]
        self.gap, self.spread = rng.uniform(1.0, 4.0), rng.uniform(8, 40)

    def draw(self, rng: random.Random, away: float = 0.0, weights: Sequence[float] = ()) -> Observation:
        """A picture; ``away`` is how far pictures have moved, in the task's own deviations of distance."""
        [label] = rng.choices(range(len(self.weights)), weights or self.weights)
        lead = abs(rng.gauss(self.gap, 1.0)) / (1.0 + away / 2)
        confidence = 1.0 / (1.0 + math.exp(-lead))
        distance = rng.gammavariate(self.spread, 1 / self.spread) + away / math.sqrt(self.spread)
        return Observation(
            label=str(label), is_unsure=confidence < 0.75, confidence=confidence, distance=distance
        )


def _simulate(num_tasks: int, num_pictures: int, rng: random.Random) -> dict[str, Any]:
    tasks = [_Task(rng) for _ in range(num_tasks)]
    references = [_refer([task.draw(rng) for _ in range(task.num_held_out)]) for task in tasks]
    steady: dict[str, int] = {}
    for repeats in (1, 2, 5, 10, 30):
        alarms = 0
        for task, reference in zip(tasks, references, strict=True):
            watch = Watch(reference)
            watch.see([one for _ in range(num_pictures // repeats) for one in [task.draw(rng)] * repeats])
            alarms += watch.alarm_at is not None
        steady[f"each part {repeats} times"] = alarms
    tilted = 0
    for task, reference in zip(tasks, references, strict=True):
        watch, weights = Watch(reference), _tilt(task.weights, 0.15)
        watch.see([task.draw(rng, weights=weights) for _ in range(num_pictures)])
        tilted += watch.alarm_at is not None
    delays = {
        f"{away} deviations away": _summarise(
            [_delay(reference, task, rng, away) for task, reference in zip(tasks, references, strict=True)]
        )
        for away in (1.0, 2.0, 3.0, 5.0)
    }
    return {
        "tasks": num_tasks,
        "pictures_each": num_pictures,
        "alarms_of_steady_tasks": {**steady, "mix of classes moved by 0.15": tilted},
        "pictures_until_alarm": delays,
    }


def _tilt(weights: Sequence[float], share: float) -> list[float]:
    """Another mix: the first class gets a share that the others give."""
    share = min(share, 1.0 - weights[0])
    rest = 1.0 - weights[0]
    return [weights[0] + share, *(weight * (1.0 - share / rest) for weight in weights[1:])]


def _delay(reference: Reference, task: _Task, rng: random.Random, away: float) -> int | None:
    return _find_delay(reference, lambda: task.draw(rng), lambda: task.draw(rng, away))


def _find_delay(
    reference: Reference, before: Callable[[], Observation], after: Callable[[], Observation]
) -> int | None:
    """Pictures from the shift to the alarm; None without one."""
    watch = Watch(reference)
    watch.see([before() for _ in range(_BEFORE)])
    watch.see([after() for _ in range(_AFTER)])
    return None if watch.alarm_at is None else watch.alarm_at - _BEFORE


def _summarise(delays: Sequence[int | None]) -> dict[str, Any]:
    found = sorted(one for one in delays if one is not None)
    return {
        "within_200": sum(one <= _GOAL for one in found) / len(delays),
        "median": statistics.median(found) if found else None,
        "longest": found[-1] if found else None,
        "none_in_1000": len(delays) - len(found),
    }


def _refer(observations: Sequence[Observation]) -> Reference:
    found = Reference.of(observations)
    if isinstance(found, str):
        raise click.UsageError(found)
    return found


def _measure_real(name: str, names: Sequence[str], steps: int, rng: random.Random) -> dict[str, Any]:
    """A tuned task on the bundled backbone: streams of its pictures, which change in one way or another."""
    import torch

    from ship.backbone import load_backbone
    from ship.runtime.runtime import Runtime
    from tests.benchmarks.accuracy.suites import find_problem

    backbone = load_backbone("bundled")
    data = find_problem(name, 0, backbone, {}).final
    is_held_out_B = torch.arange(len(data.held_out.labels_B)) % 2 == 0
    places = is_held_out_B.nonzero().flatten().tolist()[:200]
    loaded, reference = _tune(name, backbone, data, places, steps)
    shifts = _shift(data.held_out.images_B3HW[~is_held_out_B][:300])
    if other := next((one for one in names if one != name), None):
        pictures = find_problem(other, 0, backbone, {}).final.held_out.images_B3HW
        shifts[f"another product ({other})"] = pictures[:300]
    runtime = Runtime(backbone, capacity_bytes=64 << 20)
    seen = {shift: _observe(runtime, loaded, images) for shift, images in shifts.items()}

    def draw(shift: str) -> Callable[[], Observation]:
        return lambda: rng.choice(seen[shift])

    steady = _count_alarms(reference, draw(_SAME), 20)
    delays = {
        shift: _summarise([_find_delay(reference, draw(_SAME), draw(shift)) for _ in range(10)])
        for shift in shifts
        if shift != _SAME
    }
    return {
        "held_out": len(places),
        "accuracy": loaded.card.metrics["accuracy"],
        "alarms_of_20_steady_streams": steady,
        "pictures_until_alarm": delays,
        "shares": {
            shift: {
                "unsure": statistics.mean(one.is_unsure for one in found),
                "distance": statistics.median(one.distance or 0.0 for one in found),
            }
            for shift, found in seen.items()
        },
    }


def _tune(name: str, backbone: Any, data: Any, places: list[int], steps: int) -> tuple[Any, Reference]:
    """An artifact that is measured on some of the held-out pictures, and what the watch compares with."""
    from orchestrator.serve.drift.watcher import observe_held_out
    from ship.artifact.files import load_files
    from ship.artifact.held_out import HELD_OUT, HeldOut
    from ship.artifact.making import make_artifact
    from ship.data import Split
    from ship.settings.config import TuneConfig
    from ship.tuning.run import tune

    test = data.held_out
    held_out = Split(
        images_B3HW=test.images_B3HW[places],
        labels_B=test.labels_B[places],
        paths=tuple(test.paths[place] for place in places),
    )
    config = TuneConfig(epochs=1, min_steps=steps, batch_size=32, precision="float32")
    data = replace(data, test=held_out)
    files = make_artifact(name, backbone, data, tune(backbone, data, config), thumbnails=False)
    loaded = load_files(files)
    return loaded, _refer(observe_held_out(HeldOut.from_json(files[HELD_OUT]), loaded.card.decision))


def _shift(images_B3HW: Any) -> dict[str, Any]:
    """The pictures as they are, and as they are after something has changed at the camera or the part."""
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    floats, size = images_B3HW.float(), images_B3HW.shape[-2:]
    return {
        _SAME: images_B3HW,
        "darker by half": (floats * 0.5).to(torch.uint8),
        "brighter by half": (floats * 1.5).clamp(0, 255).to(torch.uint8),
        "out of focus": interpolate(avg_pool2d(floats, 8), size=size).to(torch.uint8),
        "moved by a fourth": images_B3HW.roll(size[1] // 4, dims=-1),
        "upside down": images_B3HW.flip(-2),
    }


def _count_alarms(reference: Reference, draw: Callable[[], Observation], num_streams: int) -> int:
    """Streams of 10,000 pictures in which there is an alarm."""
    watches = [Watch(reference) for _ in range(num_streams)]
    for watch in watches:
        watch.see([draw() for _ in range(10_000)])
    return sum(watch.alarm_at is not None for watch in watches)


def _observe(runtime: Any, loaded: Any, images_B3HW: Any) -> list[Observation]:
    from ship.backbone import as_rows

    slot, rule, labels = runtime.insert(loaded.prompt), loaded.card.decision, loaded.card.labels
    found = []
    for part in images_B3HW.split(max(1, 32 // slot.num_tiles)):
        for row in runtime.infer_rows(as_rows(part), [slot] * len(part)):
            logits = row.logits_C.tolist()
            distance = None if loaded.distance is None else loaded.distance.distance(row.feature_D)
            decided = rule.decide(labels, logits, distance)
            found.append(
                Observation(
                    label=labels[max(range(len(logits)), key=logits.__getitem__)],
                    is_unsure=decided.because is not None,
                    confidence=max(decided.probabilities),
                    distance=distance,
                )
            )
    return found
