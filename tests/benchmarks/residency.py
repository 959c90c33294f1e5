"""Thousands of tasks in one runtime: bytes, time to bake, insert and swap, throughput."""

import random
from collections.abc import Callable

import torch

from ship.precision import dtype_name
from ship.runtime.baking import bake
from ship.runtime.runtime import Runtime
from tests.benchmarks.harness import Report, compare
from tests.benchmarks.synthetic import default_k, find_backbone, make_images, make_prompt

__all__ = ["LEGEND", "run"]

LEGEND = {
    "forward": "one image through the runtime",
    "bake": "a prompt's keys and values made from its tokens",
    "insert": "a baked prompt written into the pool, and let go of",
    "swap": "a resident task's prompt replaced by another",
    "of N": "a mixed batch of 32 rows drawn at random from N resident tasks",
}
BATCH = 32
NUM_BAKED = 16


def run(
    report: Report,
    *,
    name: str,
    numbers: list[int],
    rounds: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Fill one pool with the largest number of tasks, then draw batches from the first 1, 100, and so on."""
    backbone = find_backbone(name, device)
    prompts = [make_prompt(backbone, seed, default_k(name)) for seed in range(NUM_BAKED)]
    baked = [bake(backbone, prompt) for prompt in prompts]
    capacity = (max(numbers) + 4) * max(each.num_bytes for each in baked) * dtype.itemsize // 4 + (1 << 20)
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=capacity)
    slots = [runtime.insert(baked[task % NUM_BAKED]) for task in range(max(numbers))]
    images = make_images(backbone, BATCH)
    draw = random.Random(0)

    def mixed(number: int) -> Callable[[], object]:
        return lambda: runtime.infer(images, [slots[draw.randrange(number)] for _ in range(BATCH)])

    def swap() -> None:
        place = draw.randrange(len(slots))
        slots[place] = runtime.insert(baked[draw.randrange(NUM_BAKED)])

    rows = {f"of {number}": mixed(number) for number in numbers}
    pairs = [(row, f"of {numbers[0]}", None) for row in list(rows)[1:]]
    settings = {"backbone": name, "dtype": dtype_name(dtype), "batch": BATCH}
    used = runtime.used_bytes
    facts = {"bytes a task": used // len(slots), "resident bytes": used, "tasks": len(slots)}
    report.add(compare(rows, pairs, settings=settings, rounds=rounds, device=device, facts=facts))
    small = {
        "forward": lambda: runtime.infer(images[:1], slots[:1]),
        "bake": lambda: bake(backbone, prompts[0]),
        "insert": lambda: runtime.insert(baked[0]),
        "swap": swap,
    }
    pairs = [(row, "forward", None) for row in ("bake", "insert", "swap")]
    settings = {"backbone": name, "dtype": dtype_name(dtype), "tasks": len(slots)}
    report.add(compare(small, pairs, settings=settings, rounds=rounds, device=device))
