"""Behaviour on a GPU: ``python -m pytest tests/gpu``; skipped on a machine without CUDA."""

import threading

import pytest
import torch
from torch import Tensor

from ship.artifact.files import insert_verified, load_files
from ship.artifact.making import seal
from ship.backbone import Backbone
from ship.errors import ShipError
from ship.method.model import forward
from ship.precision import compute_dtype
from ship.runtime.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.tuning.member import PackTask
from ship.tuning.memory import free_bytes, is_out_of_memory, step_bytes
from ship.tuning.pack import Pack
from ship.tuning.run import TuneResult, tune, tune_pack
from tests.benchmarks.synthetic import make_data, make_images, make_prompt
from tests.unit.ship.factory import make_backbone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
CUDA = torch.device("cuda")
# TF32 is off by default; sums are in another order than on a CPU.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
NUM_TASKS = 6


@pytest.fixture(scope="module")
def on_cpu() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def on_gpu(on_cpu: Backbone) -> Backbone:
    return Backbone(make_backbone().vit, on_cpu.info, CUDA)


def expected_scores(backbone: Backbone, images: Tensor, tasks: list[int]) -> list[Tensor]:
    with torch.no_grad():
        return [
            forward(
                backbone, make_prompt(backbone, task, 3), backbone.normalise(images[row : row + 1])
            ).logits_BC[0]
            for row, task in enumerate(tasks)
        ]


def config(**settings: object) -> TuneConfig:
    return TuneConfig(
        **{"epochs": 4, "batch_size": 8, "num_attribute": 4, "num_prototypes": 8, "top_k": 4, **settings}
    )


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_rows_are_answered_as_on_a_cpu(on_cpu: Backbone, on_gpu: Backbone, dtype: torch.dtype) -> None:
    runtime = Runtime(on_gpu, dtype=dtype, capacity_bytes=16 << 20)
    slots = [runtime.insert(make_prompt(on_gpu, task, 3)) for task in range(NUM_TASKS)]
    for num_rows in (1, 3, 8, 3):
        tasks = [row % NUM_TASKS for row in range(num_rows)]
        images = make_images(on_cpu, num_rows, seed=num_rows)
        found = runtime.infer(images, [slots[task] for task in tasks])
        for ours, theirs in zip(found, expected_scores(on_cpu, images, tasks), strict=True):
            torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_what_was_tuned_on_a_cpu_passes_the_load_gate(
    on_cpu: Backbone, on_gpu: Backbone, dtype: torch.dtype
) -> None:
    prompt = make_prompt(on_cpu, 0, 3, num_classes=3)
    described = {"metrics": {}, "record": {}, "readme": "", "data_fingerprint": "0" * 64, "task_key": None}
    loaded = load_files(seal("caps", on_cpu, prompt, labels=("a", "b", "c"), **described))
    assert insert_verified(Runtime(on_gpu, dtype=dtype, capacity_bytes=16 << 20), loaded).num_classes == 3


def test_swaps_while_batches_run_disturb_no_other_row(on_cpu: Backbone, on_gpu: Backbone) -> None:
    runtime = Runtime(on_gpu, capacity_bytes=16 << 20)
    steady = runtime.insert(make_prompt(on_gpu, 0, 3))
    images = make_images(on_cpu, 4)
    expected = expected_scores(on_cpu, images, [0] * 4)
    stop, wrong = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            for ours, theirs in zip(runtime.infer(images, [steady] * 4), expected, strict=True):
                if float((ours - theirs).abs().max()) > TOLERANCE[torch.float32]:
                    wrong.append(ours)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    before = torch.cuda.memory_allocated()
    for number in range(1_000):
        swapped = runtime.insert(make_prompt(on_gpu, 1 + number % 5, 3))
        del swapped
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


def test_a_pack_tunes_as_each_task_alone(on_gpu: Backbone) -> None:
    tasks = [
        PackTask(
            data=make_data(on_gpu, 20 + task, seed=task),
            config=config(num_independent=2 + task, precision="float32"),
        )
        for task in range(3)
    ]
    for found, task in zip(tune_pack(on_gpu, tasks), tasks, strict=True):
        assert isinstance(found, TuneResult), found
        alone = tune(on_gpu, task.data, task.config)
        # Kernels differ with the size of a batch, and AdamW follows the sign of a faint gradient.
        assert found.history[-1].loss == pytest.approx(alone.history[-1].loss, rel=1e-2)


def test_bfloat16_is_what_auto_comes_to_on_a_gpu_that_has_it() -> None:
    major, _ = torch.cuda.get_device_capability()
    assert (compute_dtype("auto", CUDA) == torch.bfloat16) == (major >= 8)


def test_real_exhaustion_of_memory_halves_the_groups_and_loses_no_task(on_gpu: Backbone) -> None:
    tasks = [
        PackTask(data=make_data(on_gpu, 64, seed=task), config=config(batch_size=64, epochs=1))
        for task in range(8)
    ]
    pack = Pack(on_gpu, tasks, memory_bytes=1 << 50)
    torch.cuda.empty_cache()
    first = tasks[0]
    dtype = compute_dtype(first.config.precision, CUDA)
    two = 2 * step_bytes(on_gpu.info, first.config, len(first.data.train), dtype)
    taken = torch.empty(max(0, free_bytes(CUDA) - 2 * two), dtype=torch.uint8, device=CUDA)
    while len(pack):
        pack.step()
    del taken
    failed = [outcome for outcome in pack.outcomes.values() if isinstance(outcome, Exception)]
    assert not failed, [
        (type(error), is_out_of_memory(error), isinstance(error, ShipError)) for error in failed
    ]
    assert pack.memory_bytes < 1 << 50
