"""Speed of inference: the bare backbone, SHIP written plainly, ours, LoRA, and swapped state dicts.

Every row takes the same uint8 images and returns scores on the CPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.method.prompts import Prompt
from ship.runtime.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.tuning.precision import compute_dtype
from tests.benchmarks.harness import Report, compare
from tests.benchmarks.lora import LoraTasks
from tests.benchmarks.naive import naive_forward
from tests.benchmarks.synthetic import VIT_B, default_k, find_backbone, make_images, make_prompt

__all__ = ["LEGEND", "make_rows", "run"]

LEGEND = {
    "a bare": "timm's forward of the backbone and one linear head",
    "b naive": "SHIP with prompt tokens carried through every block for every sample, one task",
    "c one task": "ours, every row of the same task",
    "d mixed": "ours, every row of another task",
    "e lora": "PEFT LoRA, rank 8 on qkv, every row another adapter (adapter_names)",
    "f swapped": "SHIP as in b, one row at a time, the task's state dict loaded before each",
}
NUM_CLASSES = 10
# By backbone and row: goal, and the only batch size for which it was set.
_GOALS = {
    (VIT_B, "a bare"): (1.0, None),
    (VIT_B, "b naive"): (1.35, None),
    (VIT_B, "c one task"): (0.98, None),
    (VIT_B, "e lora"): (1.0, 8),
    ("bundled", "a bare"): (0.9, None),
    ("bundled", "e lora"): (1.2, 64),
}


def run(
    report: Report,
    *,
    names: list[str],
    batches: list[int],
    rounds: int,
    device: torch.device,
) -> None:
    """Measure every backbone at every batch size, in float32 and, where the device can, bfloat16."""
    dtypes = dict.fromkeys([torch.float32, compute_dtype(TuneConfig(), device)])
    for name in names:
        backbone = find_backbone(name, device)
        for dtype in dtypes:
            for batch in batches:
                rows = make_rows(backbone, dtype, batch, default_k(name), report)
                pairs = [
                    ("d mixed", other, _goal(name, other, batch, dtype))
                    for other in ("a bare", "b naive", "c one task", "e lora", "f swapped")
                ]
                with torch.inference_mode():
                    case = compare(
                        rows,
                        pairs,
                        settings={
                            "backbone": name,
                            "dtype": str(dtype).removeprefix("torch."),
                            "batch": batch,
                            "K": default_k(name),
                            "tasks": batch,
                        },
                        rounds=rounds,
                        device=device,
                    )
                report.add(case)


def make_rows(
    backbone: Backbone, dtype: torch.dtype, batch: int, num_independent: int, report: Report
) -> dict[str, Callable[[], list[Tensor] | Tensor]]:
    """Timed calls by row; LoRA only where PEFT is installed."""
    cast = backbone.cast(dtype)
    images = make_images(backbone, batch)
    prompts = [make_prompt(backbone, seed, num_independent) for seed in range(batch)]
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=_capacity(prompts))
    slots = [runtime.insert(prompt) for prompt in prompts]
    head = torch.nn.Linear(backbone.info.width, NUM_CLASSES, device=backbone.device, dtype=dtype)
    # A state dict fits only a prompt of the same shapes.
    alike = [make_prompt(cast, 0, num_independent, NUM_CLASSES).to(dtype) for _ in range(batch)]
    states = [prompt.state_dict() for prompt in alike]
    current = make_prompt(cast, 0, num_independent, NUM_CLASSES).to(dtype)

    def swapped() -> list[Tensor]:
        scores = []
        for row, state in enumerate(states):
            current.load_state_dict(state)
            scores.append(naive_forward(cast, current, cast.normalise(images[row : row + 1]))[0].cpu())
        return scores

    rows: dict[str, Callable[[], list[Tensor] | Tensor]] = {
        "a bare": lambda: head(cast.vit(cast.normalise(images).to(dtype))).cpu(),
        "b naive": lambda: naive_forward(cast, current, cast.normalise(images))[0].cpu(),
        "c one task": lambda: runtime.infer(images, slots[:1] * batch),
        "d mixed": lambda: runtime.infer(images, slots),
        "f swapped": swapped,
    }
    try:
        lora = LoraTasks(cast, batch, NUM_CLASSES)
    except ImportError as error:
        report.skipped.append(f"e lora: {error}")
    else:
        rows["e lora"] = lambda: lora.infer(images, list(range(batch)))
    return rows


def _goal(name: str, other: str, batch: int, dtype: torch.dtype) -> float | None:
    goal, only_batch = _GOALS.get((name, other), (None, None))
    return goal if only_batch in (None, batch) and dtype == torch.float32 else None


def _capacity(prompts: list[Prompt]) -> int:
    """Bytes for all prompts: static keys and values of every layer, prototypes, attribute groups and head."""
    total = 1 << 20
    for prompt in prompts:
        num_static = prompt.independent.shape[1] + prompt.shared.shape[0]
        rows = 2 * prompt.depth * num_static + len(prompt.prototypes) + prompt.num_classes + 64
        total += rows * prompt.prototypes.shape[1] * 4
    return total
