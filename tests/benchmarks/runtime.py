"""Speed of inference: the bare backbone, SHIP written plainly, ours, LoRA, and swapped state dicts.

Every row takes the same uint8 images and returns scores on the CPU.
"""

import functools
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.method.prompts import Prompt
from ship.precision import compute_dtype
from ship.runtime.baking import bake
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot
from tests.benchmarks.harness import Report, compare, compute_clock
from tests.benchmarks.lora import RANK, LoraTasks
from tests.benchmarks.naive import naive_forward
from tests.benchmarks.synthetic import VIT_B, as_of_timm, default_k, find_backbone, make_images, make_prompt

__all__ = ["LEGEND", "make_rows", "run"]

LEGEND = {
    "a bare": "timm's forward of the backbone and one linear head",
    "b naive": "SHIP with prompt tokens carried through every block for every sample, one task",
    "c one task": "ours as in d, every row of the same task",
    "d mixed": "ours, every row of another task, each a prompt with attribute tokens",
    "e lora": "PEFT LoRA, rank 8 on qkv, every row another adapter (adapter_names)",
    "f swapped": "SHIP as in b, one row at a time, the task's state dict loaded before each",
    "g prompt": "as d, without attribute tokens",
    "h low rank": "as d, each rank 8 on qkv and no prompt",
    "i layer head": "as d, each a head over four layers and no prompt",
    "j full": "as d, each a prompt without attribute tokens, rank 8 on qkv and a head over four layers",
}
_PARTS: dict[str, dict[str, object]] = {
    "d mixed": {},
    "g prompt": {"num_attribute": 0},
    "h low rank": {"num_attribute": 0, "kind": "lora", "rank": RANK},
    "i layer head": {"num_attribute": 0, "kind": "probe", "head": "layers"},
    "j full": {"num_attribute": 0, "kind": "ship+lora", "rank": RANK, "head": "layers"},
}
_OTHERS = {"d mixed": ("a bare", "b naive", "c one task", "e lora", "f swapped")}
NUM_CLASSES = 10
# By backbone, row and other row: goal, and the only batch size for which it was set.
_GOALS: dict[tuple[str, str, str], tuple[float, int | None]] = {
    (VIT_B, "d mixed", "a bare"): (1.0, None),
    (VIT_B, "d mixed", "b naive"): (1.35, None),
    (VIT_B, "d mixed", "c one task"): (0.98, None),
    (VIT_B, "d mixed", "e lora"): (1.0, 8),
    (VIT_B, "j full", "a bare"): (1.0, 8),
    (VIT_B, "j full", "e lora"): (1.2, 8),
    ("bundled", "d mixed", "e lora"): (1.2, 64),
    ("bundled", "g prompt", "a bare"): (0.85, None),
    ("bundled", "j full", "a bare"): (0.85, None),
}


def run(
    report: Report,
    *,
    names: list[str],
    batches: list[int],
    rounds: int,
    device: torch.device,
    wanted: Collection[str] = LEGEND,
    dtypes: Collection[torch.dtype] = (),
) -> None:
    """Measure every backbone at every batch size, in float32 and, where the device can, bfloat16.

    Args:
        report: Takes the cases.
        names: Backbones.
        batches: Batch sizes.
        rounds: Rounds of each case.
        device: Device of the rows.
        wanted: Rows of ``LEGEND`` to measure.
        dtypes: Dtypes in place of these.
    """
    dtypes = dtypes or dict.fromkeys([torch.float32, compute_dtype("auto", device)])
    clock = compute_clock(device)
    for name in names:
        backbone = find_backbone(name, device)
        for dtype in dtypes:
            for batch in batches:
                rows = make_rows(backbone, dtype, batch, default_k(name), report, wanted)
                pairs = _pairs(name, batch, dtype)
                settings = {
                    "backbone": name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "batch": batch,
                    "K": default_k(name),
                    "tasks": batch,
                    "clock": clock.__name__,
                }
                with torch.inference_mode():
                    case = compare(rows, pairs, settings=settings, rounds=rounds, device=device, clock=clock)
                report.add(case)


def _pairs(name: str, batch: int, dtype: torch.dtype) -> list[tuple[str, str, float | None]]:
    """Rows that are compared, each with the goal for its ratio to the other."""
    return [
        (row, other, _goal((name, row, other), batch, dtype))
        for row in _PARTS
        for other in _OTHERS.get(row, ("a bare", "e lora"))
    ]


def make_rows(
    backbone: Backbone,
    dtype: torch.dtype,
    batch: int,
    num_independent: int,
    report: Report,
    wanted: Collection[str] = LEGEND,
) -> dict[str, Callable[[], list[Tensor] | Tensor]]:
    """Timed calls by row; LoRA only where PEFT is installed."""
    cast = as_of_timm(backbone.cast(dtype))
    images = make_images(backbone, batch)
    head = torch.nn.Linear(backbone.info.width, NUM_CLASSES, device=backbone.device, dtype=dtype)
    current = make_prompt(cast, 0, num_independent, NUM_CLASSES).to(dtype)
    rows: dict[str, Callable[[], list[Tensor] | Tensor]] = {
        "a bare": lambda: head(cast.vit(cast.normalise(images).to(dtype))).cpu(),
        "b naive": lambda: naive_forward(cast, current, cast.normalise(images))[0].cpu(),
        "f swapped": _make_swapped(cast, current, images, num_independent),
    }
    for row, settings in _PARTS.items():
        if row in wanted or (row == "d mixed" and "c one task" in wanted):
            runtime, slots = _insert(backbone, dtype, batch, num_independent, settings)
            rows[row] = functools.partial(runtime.infer, images, slots)
            if row == "d mixed":
                rows["c one task"] = functools.partial(runtime.infer, images, slots[:1] * batch)
    if "e lora" in wanted:
        try:
            lora = LoraTasks(cast, batch, NUM_CLASSES)
        except ImportError as error:
            report.skipped.append(f"e lora: {error}")
        else:
            rows["e lora"] = lambda: lora.infer(images, list(range(batch)))
    return {row: rows[row] for row in sorted(rows) if row in wanted}


def _make_swapped(
    cast: Backbone, current: Prompt, images: Tensor, num_independent: int
) -> Callable[[], list[Tensor]]:
    """Naive passes of an image each, before which the image's prompt is loaded into ``current``."""
    # A state dict fits only a prompt of the same shapes.
    alike = [make_prompt(cast, 0, num_independent, NUM_CLASSES).to(cast.dtype) for _ in images]
    states = [prompt.state_dict() for prompt in alike]

    def swapped() -> list[Tensor]:
        scores = []
        for row, state in enumerate(states):
            current.load_state_dict(state)
            scores.append(naive_forward(cast, current, cast.normalise(images[row : row + 1]))[0].cpu())
        return scores

    return swapped


def _insert(
    backbone: Backbone, dtype: torch.dtype, batch: int, num_independent: int, settings: dict[str, object]
) -> tuple[Runtime, list[Slot]]:
    """A runtime that is just large enough for a batch of tasks, and their slots."""
    baked = [
        bake(backbone, make_prompt(backbone, seed, num_independent, **settings)) for seed in range(batch)
    ]
    capacity = sum(each.num_bytes for each in baked) + (1 << 20)
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=capacity)
    return runtime, [runtime.insert(each) for each in baked]


def _goal(pair: tuple[str, str, str], batch: int, dtype: torch.dtype) -> float | None:
    goal, only_batch = _GOALS.get(pair, (None, None))
    return goal if only_batch in (None, batch) and dtype == torch.float32 else None
