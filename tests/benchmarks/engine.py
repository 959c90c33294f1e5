"""The engine's own path in this process: images to answers, and through the batcher, beside timm's forward.

Neither Ray nor HTTP takes part: what an engine could answer if requests cost nothing.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from orchestrator.serve.batching.batch_wait import BatchWait
from orchestrator.serve.batching.batcher import Batcher
from orchestrator.serve.engine.forward import Row, answer_rows
from orchestrator.serve.engine_api import Answer, Refusal
from orchestrator.serve.residency.served import ServedVersion
from ship.backbone import Backbone
from ship.precision import dtype_name
from ship.runtime.baking import bake
from ship.runtime.runtime import Runtime
from tests.benchmarks.harness import Report, compare
from tests.benchmarks.synthetic import as_of_timm, default_k, make_images, make_prompt

__all__ = ["LEGEND", "make_rows", "run"]

LEGEND = {
    "bare": "timm's forward of the backbone and one linear head, batch by batch",
    "rows": "images and versions to answers, batch by batch, rows of many tasks",
    "batcher": "the same rows submitted one by one to the engine's batcher, three batches at a time",
}
# Prompts that differ; more tasks share them, each with rows of the pool of its own.
_NUM_BAKED = 16


def run(
    report: Report,
    *,
    backbone: Backbone,
    name: str,
    dtype: torch.dtype,
    batches: Sequence[int],
    num_tasks: int,
    passes: int,
    rounds: int,
) -> None:
    """Measure every batch size; a call takes so many passes."""
    served, runtime = _serve(backbone, name, dtype, num_tasks)
    for batch in batches:
        rows = make_rows(backbone, runtime, served, batch, batch * passes)
        case = compare(
            rows,
            [("rows", "bare", None), ("batcher", "rows", None), ("batcher", "bare", None)],
            settings={
                "backbone": name,
                "dtype": dtype_name(dtype),
                "batch": batch,
                "tasks": num_tasks,
                "passes": passes,
            },
            rounds=rounds,
            device=backbone.device,
        )
        for row, seconds in case.seconds.items():
            case.facts[f"images a second, {row}"] = round(batch * passes / seconds, 1)
            # On a GPU a process that waits for it is busy as well.
            if backbone.device.type == "cpu":
                cpu_ms = 1e3 * _cpu_seconds(rows[row]) / (batch * passes)
                case.facts[f"CPU ms an image, {row}"] = round(cpu_ms, 4)
        report.add(case)


def make_rows(
    backbone: Backbone, runtime: Runtime, served: Sequence[ServedVersion], batch: int, num_images: int
) -> dict[str, Callable[[], Any]]:
    """Timed calls by row; those of the engine return its answers and raise for a refusal."""
    cast = as_of_timm(backbone.cast(runtime.dtype))
    head = torch.nn.Linear(backbone.info.width, 10, device=backbone.device, dtype=runtime.dtype)
    images = make_images(backbone, batch)
    draw = random.Random(0)
    pixels = [images[number % batch].numpy() for number in range(num_images)]
    asked = [Row(image=image, served=draw.choice(served)) for image in pixels]

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(num_images // batch):
            head(cast.vit(cast.normalise(images).to(cast.dtype))).cpu()

    def in_batches() -> list[Answer]:
        starts = range(0, num_images, batch)
        return _check([one for i in starts for one in answer_rows(runtime, asked[i : i + batch])])

    def through_batcher() -> list[Answer]:
        return _check(asyncio.run(_submit_all(runtime, asked, batch)))

    return {"bare": bare, "rows": in_batches, "batcher": through_batcher}


async def _submit_all(runtime: Runtime, asked: Sequence[Row], batch: int) -> list[Answer | Refusal]:
    async def answer(rows: list[Row]) -> list[Answer | Refusal]:
        return await asyncio.to_thread(answer_rows, runtime, rows)

    batcher: Batcher[Row, Answer | Refusal] = Batcher(
        answer,
        max_rows=batch,
        max_waiting=4 * batch,
        wait=BatchWait(0.005),
        max_pass_s=60.0,
        max_queue_s=600.0,
    )
    places = asyncio.Semaphore(3 * batch)

    async def submit(row: Row) -> Answer | Refusal:
        async with places:
            return (await batcher.submit(row.served.task, row, 600.0)).reply

    return list(await asyncio.gather(*map(submit, asked)))


def _serve(
    backbone: Backbone, name: str, dtype: torch.dtype, num_tasks: int
) -> tuple[list[ServedVersion], Runtime]:
    baked = [bake(backbone, make_prompt(backbone, seed, default_k(name))) for seed in range(_NUM_BAKED)]
    capacity_bytes = (num_tasks + 1) * max(each.num_bytes for each in baked) + (1 << 20)
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=capacity_bytes * dtype.itemsize // 4)
    served = []
    for task in range(num_tasks):
        slot = runtime.insert(baked[task % _NUM_BAKED])
        labels = tuple(f"class-{place}" for place in range(slot.num_classes))
        served.append(
            ServedVersion(task=f"task-{task}", version=1, digest=f"{task:064x}", labels=labels, slot=slot)
        )
    return served, runtime


def _check(replies: Sequence[Answer | Refusal]) -> list[Answer]:
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    if len(answers) < len(replies):
        refused = next(reply for reply in replies if isinstance(reply, Refusal))
        raise ArithmeticError(f"{len(replies) - len(answers)} rows were refused: {refused.detail}")
    return answers


def _cpu_seconds(call: Callable[[], object]) -> float:
    call()
    start_s = time.process_time()
    call()
    return time.process_time() - start_s
