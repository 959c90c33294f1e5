"""Answers in half precision beside those in float32: scores, labels and decisions on held-out pictures.

Each task is tuned in float32. Its decision rule is fitted on a fourth of the test pictures, for a limit that
is fitted on a picture lies exactly at it; the others are answered in each precision. On a processor that does
not multiply in half precision, products are computed in float32 and rounded, as a GPU does.

Shapes: B pictures, C classes.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ship.artifact.files import LoadedPrompt, ask_probe, load_files, probe_difference
from ship.artifact.making import make_artifact
from ship.backbone import Backbone, as_rows
from ship.data import Split
from ship.precision import compute_dtype, dtype_name
from ship.runtime.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.benchmarks.harness import Case, Report

__all__ = ["LEGEND", "NUM_STEPS", "Answers", "answer", "compare_answers", "products_of", "run", "tune_task"]

LEGEND = {
    "labels": "share of the pictures whose likeliest label is another one than in float32",
    "decisions": "share of the pictures for which the decision rule decides otherwise; goal: below 0.001",
    "scores": "largest difference of a score",
    "probe": "difference of the probe's scores, as the load gate measures it",
}
NUM_STEPS = 100
_PRODUCTS = {
    getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm", "convolution")
}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one runtime makes of pictures.

    Attributes:
        logits_BC: Class scores.
        labels: The likeliest label of each.
        decisions: What the decision rule says of each: a label, or ``unsure`` and why.
    """

    logits_BC: Tensor
    labels: list[int]
    decisions: list[str]


class _WideProducts(TorchDispatchMode):
    """Products of half precision computed in float32, and rounded."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _PRODUCTS or args[1].dtype == torch.float32:
            return func(*args, **(kwargs or {}))
        wide = [arg.float() if isinstance(arg, Tensor) else arg for arg in args]
        return func(*wide, **(kwargs or {})).to(args[1].dtype)


def products_of(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Products in a dtype: the device's own where it has them."""
    is_own = device.type == "cuda" or dtype in (torch.float32, compute_dtype("auto", device))
    return contextlib.nullcontext() if is_own else _WideProducts()


def tune_task(name: str, backbone: Backbone, steps: int = NUM_STEPS) -> tuple[LoadedPrompt, Tensor, Tensor]:
    """A task of the accuracy benchmark, tuned: its artifact, and further test pictures with their labels."""
    from tests.benchmarks.accuracy.suites import find_problem

    data = find_problem(name, 0, backbone, {}).final
    test = data.held_out
    is_fitted_B = torch.arange(len(test.labels_B)) % 4 == 0
    data = replace(data, test=_choose(test, is_fitted_B))
    config = TuneConfig(epochs=1, min_steps=steps, batch_size=32, precision="float32")
    files = make_artifact(name, backbone, data, tune(backbone, data, config), thumbnails=False)
    others = _choose(test, ~is_fitted_B)
    return load_files(files), others.images_B3HW, others.labels_B


def _choose(split: Split, chosen_B: Tensor) -> Split:
    places = chosen_B.nonzero().flatten().tolist()
    return Split(
        images_B3HW=split.images_B3HW[chosen_B],
        labels_B=split.labels_B[chosen_B],
        paths=tuple(split.paths[place] for place in places),
    )


def answer(runtime: Runtime, loaded: LoadedPrompt, images_BCHW: Tensor) -> Answers:
    """Answers to pictures, as an engine gives them."""
    slot, rule, labels = runtime.insert(loaded.prompt), loaded.card.decision, loaded.card.labels
    rows = [
        row
        for part in images_BCHW.split(max(1, 32 // slot.num_tiles))
        for row in runtime.infer_rows(as_rows(part), [slot] * len(part))
    ]
    distances = None if loaded.distance is None else [loaded.distance.distance(r.feature_D) for r in rows]
    logits_BC = torch.stack([row.logits_C for row in rows])
    decided = rule.decide_all(labels, logits_BC.tolist(), distances)
    return Answers(
        logits_BC=logits_BC,
        labels=logits_BC.argmax(dim=1).tolist(),
        decisions=[f"{each.label} {each.because or ''}".strip() for each in decided],
    )


def compare_answers(found: Answers, wanted: Answers) -> dict[str, float]:
    """The shares of labels and decisions that differ, and the largest difference of a score."""
    return {
        "labels": _share_unlike(found.labels, wanted.labels),
        "decisions": _share_unlike(found.decisions, wanted.decisions),
        "scores": float((found.logits_BC - wanted.logits_BC).abs().max()),
    }


def run(
    report: Report, *, backbone: Backbone, names: Sequence[str], most: int, steps: int = NUM_STEPS
) -> None:
    """Compare each task's answers to at most so many test pictures in each precision."""
    changed = {torch.bfloat16: [0, 0, 0], torch.float16: [0, 0, 0]}
    for name in names:
        loaded, images, labels_B = tune_task(name, backbone, steps)
        images, labels_B = images[:most], labels_B[:most]
        wanted = answer(Runtime(backbone, capacity_bytes=64 << 20), loaded, images)
        for dtype, counts in changed.items():
            facts, flips = _measure(backbone, loaded, images, labels_B, wanted, dtype)
            counts[:] = [count + more for count, more in zip(counts, flips, strict=True)]
            report.add(_case({"task": name, "dtype": dtype_name(dtype)}, facts))
    for dtype, (num, labels, decisions) in changed.items():
        facts = {"pictures": num, "labels": labels / num, "decisions": decisions / num}
        report.add(_case({"task": "all", "dtype": dtype_name(dtype)}, facts))


def _measure(
    backbone: Backbone,
    loaded: LoadedPrompt,
    images: Tensor,
    labels_B: Tensor,
    wanted: Answers,
    dtype: torch.dtype,
) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """Facts about one task in one precision, with pictures, changed labels and changed decisions."""
    with products_of(dtype, backbone.device):
        runtime = Runtime(backbone, dtype=dtype, capacity_bytes=64 << 20)
        found = answer(runtime, loaded, images)
        probe = probe_difference(loaded, ask_probe(runtime, runtime.insert(loaded.prompt)))
    facts: dict[str, Any] = {"pictures": len(images), **compare_answers(found, wanted), "probe": probe}
    for key, answers in (("accuracy", found), ("accuracy in float32", wanted)):
        facts[key] = 1.0 - _share_unlike(answers.labels, labels_B.tolist())
    flips = [round(facts[key] * len(images)) for key in ("labels", "decisions")]
    return facts, (len(images), flips[0], flips[1])


def _case(settings: dict[str, Any], facts: dict[str, Any]) -> Case:
    return Case(settings=settings, rounds=1, seconds={}, ratios=[], facts=facts)


def _share_unlike(found: Sequence[object], wanted: Sequence[object]) -> float:
    pairs = list(zip(found, wanted, strict=True))
    return sum(one != other for one, other in pairs) / len(pairs)
