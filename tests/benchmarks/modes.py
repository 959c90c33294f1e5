"""The runtime eager, compiled, and as CUDA graphs, beside timm's bare forward in the same ways.

Every row takes the same uint8 images and returns scores on the CPU. Compilation and capture are no part of
the times.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ship.backbone import Backbone
from ship.precision import dtype_name
from ship.runtime.baking import bake
from ship.runtime.rows import LayerPrompts
from ship.runtime.runtime import Runtime, run_block
from tests.benchmarks.harness import Report, compare, compute_clock
from tests.benchmarks.synthetic import as_of_timm, default_k, make_images, make_prompt

__all__ = ["LEGEND", "GraphedBlocks", "check_alike", "make_rows", "run"]

LEGEND = {
    "bare": "timm's forward of the backbone and one linear head",
    "bare compiled": "the same with torch.compile of each block",
    "eager": "the runtime as it serves, every row of another task",
    "compiled": "the runtime with torch.compile of each block",
    "graphs": "the runtime with each block as a CUDA graph",
    "compiled graphs": "both",
}
# Of the largest score and one: other kernels round at other places, in bfloat16 8 bits.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
_Run = Callable[..., tuple[Tensor, Tensor | None]]


class GraphedBlocks:
    """Blocks that are captured at their first call with tensors of some shapes, and replayed from then on.

    On a CPU, which has no graphs, a block is computed from the same kept copies of its inputs.

    Args:
        run: Computes a block.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._captured: dict[Any, Callable[[list[Tensor]], tuple[Tensor, Tensor | None]]] = {}

    def __call__(
        self, block: Any, z: Tensor, prompts: LayerPrompts | None, update: Any, **how: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See ``ship.runtime.runtime.run_block``."""
        assert update is None, "low-rank updates make index tables in each layer"
        given = [] if prompts is None else [prompts.keys_BHPE, prompts.values_BHPE, prompts.gate_B111]
        masks = [] if prompts is None or prompts.mask_B11P is None else [prompts.mask_B11P]
        inputs = [z, *given, *masks]
        key = id(block), tuple(how.items()), tuple(each.shape for each in inputs)
        if key not in self._captured:
            kept = [_like(each) for each in inputs]
            call = functools.partial(self._run, block, kept[0], _as_prompts(kept[1:]), None, **how)
            self._captured[key] = _replayed(call, kept)
        return self._captured[key](inputs)


def _like(x: Tensor) -> Tensor:
    """A copy with the same strides, for which nothing is compiled again."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x)


def _as_prompts(tensors: Sequence[Tensor]) -> LayerPrompts | None:
    if not tensors:
        return None
    keys, values, gate, *masks = tensors
    return LayerPrompts(
        keys_BHPE=keys, values_BHPE=values, gate_B111=gate, mask_B11P=masks[0] if masks else None
    )


def _replayed(call: Callable[[], Any], kept: list[Tensor]) -> Callable[[list[Tensor]], Any]:
    """A function that copies inputs over those kept, and computes."""
    compute = _capture(call) if kept[0].is_cuda else call

    def replay(inputs: list[Tensor]) -> Any:
        for own, given in zip(kept, inputs, strict=True):
            own.copy_(given)
        return compute()

    return replay


def _capture(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call as a CUDA graph."""
    # Libraries set themselves up in their first calls, which must not be captured.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay


def make_rows(
    backbone: Backbone, name: str, dtype: torch.dtype, batch: int, backend: str
) -> dict[str, Callable[[], Any]]:
    """Timed calls by row.

    Args:
        backbone: Backbone in float32.
        name: Its name, for K.
        dtype: Dtype of all rows.
        batch: Images of a call, each asked by a task of its own.
        backend: Backend of ``torch.compile``.
    """
    # One graph serves all blocks or each has its own, by torch's version: none may fall back to eager.
    torch._dynamo.config.recompile_limit = 256
    cast, images = as_of_timm(backbone.cast(dtype)), make_images(backbone, batch)
    head = torch.nn.Linear(backbone.info.width, 10, device=backbone.device, dtype=dtype)
    baked = [bake(backbone, make_prompt(backbone, task, default_k(name))) for task in range(batch)]
    capacity_bytes = sum(each.num_bytes for each in baked) + (1 << 20)
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=capacity_bytes)
    slots = [runtime.insert(each) for each in baked]
    compiled = torch.compile(run_block, dynamic=False, backend=backend)
    # A block is compiled once, and serves all layers: the whole network would take a minute.
    compiled_vit = copy.deepcopy(cast.vit)
    for block in compiled_vit.blocks:
        block.compile(dynamic=False, backend=backend)
    blocks: dict[str, _Run] = {
        "eager": run_block,
        "compiled": compiled,
        "graphs": GraphedBlocks(run_block),
        "compiled graphs": GraphedBlocks(compiled),
    }

    def bare(vit: Callable[[Tensor], Tensor]) -> Tensor:
        return head(vit(cast.normalise(images).to(dtype))).cpu()

    def ours(run: _Run) -> list[Tensor]:
        runtime.run_block = run
        return runtime.infer(images, slots)

    rows: dict[str, Callable[[], Any]] = {
        "bare": functools.partial(bare, cast.vit),
        "bare compiled": functools.partial(bare, compiled_vit),
    }
    return rows | {row: functools.partial(ours, run) for row, run in blocks.items()}


def check_alike(found: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype) -> float:
    """Largest difference of scores in parts of their size.

    Raises:
        ArithmeticError: It is more than rounding explains, or not a number.
    """
    size = 1.0 + max(float(scores.abs().max()) for scores in wanted)
    pairs = zip(found, wanted, strict=True)
    differences = torch.stack([(one.float() - other.float()).abs().max() for one, other in pairs])
    difference = float(differences.max()) / size
    if not difference <= TOLERANCE[dtype]:
        raise ArithmeticError(f"scores differ by {difference:.3g} of their size in {dtype_name(dtype)}")
    return difference


def run(
    report: Report,
    *,
    backbone: Backbone,
    name: str,
    dtype: torch.dtype,
    batches: Sequence[int],
    rounds: int,
    backend: str = "inductor",
) -> None:
    """Measure every way at every batch size, once all of them have answered alike."""
    device = backbone.device
    for batch in batches:
        with torch.inference_mode():
            rows = make_rows(backbone, name, dtype, batch, backend)
            eager, bare = rows["eager"](), rows["bare"]()
            unlike = {
                row: check_alike(call(), bare if row.startswith("bare") else eager, dtype)
                for row, call in rows.items()
            }
            pairs = [(row, "bare", None) for row in list(rows)[1:]]
            pairs += [(row, "eager", None) for row in list(rows)[3:]]
            settings = {"backbone": name, "dtype": dtype_name(dtype), "batch": batch, "tasks": batch}
            case = compare(
                rows, pairs, settings=settings, rounds=rounds, device=device, clock=compute_clock(device)
            )
        case.facts.update({f"images a second, {row}": round(batch / s, 1) for row, s in case.seconds.items()})
        case.facts.update({f"difference, {row}": value for row, value in unlike.items()})
        report.add(case)
