"""Tasks tuned in a pack come out as tasks tuned alone, and what happens to one happens to it alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ship.backbone import Backbone
from ship.data import TaskData
from ship.errors import ConfigError, TuningError
from ship.method.hierarchy import layer_tokens
from ship.method.losses import total_loss
from ship.method.model import forward, forward_pack
from ship.method.prompts import Prompt, spread_layers
from ship.precision import compute_dtype
from ship.tuning.memory import free_bytes, is_out_of_memory, step_bytes
from ship.tuning.pack import Pack
from ship.tuning.run import PackTask, TuneResult, tune, tune_pack
from ship.tuning.schedule import has_stalled
from ship.tuning.search import search
from ship.tuning.state import EpochReport
from tests.unit.ship.factory import DEPTH, WIDTH, make_backbone, make_data
from tests.unit.ship.tuning.packs import Quick, assert_same, make_tasks


def tune_alone(backbone: Backbone, task: PackTask) -> TuneResult:
    return tune(backbone, task.data, task.config)


@pytest.mark.parametrize("max_fused", [None, 2])
def test_tasks_come_out_of_a_pack_as_they_do_alone(
    backbone: Backbone, quick: Quick, max_fused: int | None
) -> None:
    tasks = make_tasks(quick)
    before = {key: value.clone() for key, value in backbone.vit.state_dict().items()}
    packed = tune_pack(backbone, tasks, max_fused=max_fused)
    for found, task in zip(packed, tasks, strict=True):
        assert_same(found, tune_alone(backbone, task))
    assert all(torch.equal(value, before[key]) for key, value in backbone.vit.state_dict().items())
    assert all(weight.grad is None for weight in backbone.vit.parameters())


def random_prompt(quick: Quick, seed: int, level_starts: list[int], num_classes: int, **settings) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    prototypes_RD = torch.randn(8, WIDTH, generator=generator)
    prompt = Prompt(
        quick(**settings),
        level_starts=level_starts,
        depth=DEPTH,
        prototypes_RD=prototypes_RD,
        num_classes=num_classes,
        head_layers=spread_layers(DEPTH) if settings.get("head") == "layers" else (),
    )
    prompt.initialise(generator)
    with torch.no_grad():
        prompt.gate.uniform_(0.1, 0.4, generator=generator)
        for up in prompt.low_rank.up.values() if prompt.low_rank else ():
            up.uniform_(-0.3, 0.3, generator=generator)
    return prompt.double()


def test_losses_and_gradients_of_a_pack_are_those_of_each_task_alone(
    backbone: Backbone, quick: Quick
) -> None:
    """In float64, where nothing but rounding at 1e-16 may tell them apart."""
    exact = backbone.cast(torch.float64)
    prompts = [
        random_prompt(quick, 1, [0, 2], 3),
        random_prompt(quick, 2, [0, 1, 2, 3], 5, num_independent=7, start="published"),
        random_prompt(quick, 3, [0], 2, num_shared=0),
        random_prompt(quick, 4, [0, 3], 4, num_independent=0, num_shared=0, num_attribute=0, top_k=2),
        random_prompt(quick, 5, [0, 2], 3, kind="lora", rank=3, low_rank_on="qkv+proj+fc1+fc2"),
        random_prompt(quick, 6, [0, 2], 3, kind="ship+lora", rank=2, head="layers"),
        random_prompt(quick, 7, [0], 2, kind="probe"),
    ]
    sizes = [5, 2, 1, 3, 2, 3, 1]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (sum(sizes), 3, 32, 32), generator=generator, dtype=torch.uint8)
    images_BCHW = exact.normalise(images)

    def losses(outputs, chosen) -> list[torch.Tensor]:
        return [
            total_loss(
                F.cross_entropy(output.logits_BC, torch.arange(len(output.logits_BC)) % prompt.num_classes),
                output.matching,
                prompt,
                torch.zeros_like(prompt.head.weight),
            )
            for output, prompt in zip(outputs, chosen, strict=True)
        ]

    packed = losses(forward_pack(exact, prompts, images_BCHW, sizes, with_matching=True), prompts)
    torch.stack(packed).sum().backward()
    for prompt, images_bCHW, loss in zip(prompts, images_BCHW.split(sizes), packed, strict=True):
        gradients = {name: weight.grad for name, weight in prompt.named_parameters() if weight.requires_grad}
        prompt.zero_grad(set_to_none=True)
        [alone] = losses([forward(exact, prompt, images_bCHW, with_matching=True)], [prompt])
        alone.backward()
        torch.testing.assert_close(loss, alone, atol=1e-12, rtol=1e-12)
        for name, weight in prompt.named_parameters():
            if weight.requires_grad:
                torch.testing.assert_close(gradients[name], weight.grad, atol=1e-10, rtol=1e-9)


def test_candidates_of_one_task_share_one_look_at_its_images(
    backbone: Backbone, data: TaskData, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = [
        quick(precision="float32", learning_rate=rate, seed=seed) for rate in (0.01, 0.05) for seed in (0, 1)
    ]
    alone = [tune(backbone, data, config) for config in candidates]
    num_passes = 0

    def count(*args):
        nonlocal num_passes
        num_passes += 1
        return layer_tokens(*args)

    monkeypatch.setattr("ship.tuning.preparation.layer_tokens", count)
    packed = tune_pack(backbone, [PackTask(data=data, config=config) for config in candidates])
    assert num_passes == 2, "one over the training images, one over those held out"
    for found, expected in zip(packed, alone, strict=True):
        assert_same(found, expected)


def test_a_loss_that_is_not_finite_ends_its_own_task_alone(backbone: Backbone, quick: Quick) -> None:
    healthy = make_tasks(quick)[:2]
    sick = PackTask(data=make_data(12, 3, seed=7), config=quick(matching_weight=1e308, learning_rate=10.0))
    first, error, second = tune_pack(backbone, [healthy[0], sick, healthy[1]])
    assert isinstance(error, TuningError)
    assert "not finite in epoch" in str(error)
    assert_same(first, tune_alone(backbone, healthy[0]))
    assert_same(second, tune_alone(backbone, healthy[1]))


def test_callbacks_settings_and_snapshots_that_fail_end_their_own_task_alone(
    backbone: Backbone, quick: Quick
) -> None:
    healthy, *_ = make_tasks(quick)
    data = make_data(12, 3, seed=7)

    def fail(_: object) -> None:
        raise ConnectionError("the lease is lost")

    *errors, found = tune_pack(
        backbone,
        [
            PackTask(data=data, config=quick(), on_epoch=fail),
            PackTask(data=data, config=quick(), on_snapshot=fail, snapshot_every=1),
            PackTask(data=data, config=quick(num_attribute=18)),
            PackTask(data=data, config=quick(), resume=b"torn"),
            healthy,
        ],
    )
    assert [type(error).__name__ for error in errors] == [
        "ConnectionError",
        "ConnectionError",
        "ConfigError",
        "ArtifactError",
    ]
    assert_same(found, tune_alone(backbone, healthy))


def test_an_interrupt_ends_the_pack(backbone: Backbone, data: TaskData, quick: Quick) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_pack(backbone, [PackTask(data=data, config=quick(), on_epoch=interrupt)])


def test_a_task_may_join_and_resume_while_others_are_under_way(backbone: Backbone, quick: Quick) -> None:
    first, second, *_ = make_tasks(quick)
    snapshots: list[bytes] = []
    whole = tune(backbone, second.data, second.config, on_snapshot=snapshots.append, snapshot_every=2)
    pack = Pack(backbone, [first])
    pack.step()
    pack.step()
    epochs: list[int] = []
    [key] = pack.add(
        [
            PackTask(
                data=second.data,
                config=second.config,
                resume=snapshots[0],
                on_epoch=lambda report: epochs.append(report.epoch),
            )
        ]
    )
    while len(pack):
        pack.step()
    assert epochs == [3, 4]
    assert_same(pack.outcomes[key], whole)
    assert_same(pack.outcomes[0], tune_alone(backbone, first))


class LittleMemory:
    """A forward pass that runs out of memory, as torch says it, for more than so many tasks or images."""

    def __init__(self, most_tasks: int, most_images: int = 1_000) -> None:
        self.most_tasks, self.most_images = most_tasks, most_images
        self.seen: list[int] = []

    def __call__(self, backbone, prompts, images_BCHW, sizes, **keywords):
        self.seen.append(len(prompts))
        outputs = forward_pack(backbone, prompts, images_BCHW, sizes, **keywords)
        if len(prompts) > self.most_tasks or max(sizes) > self.most_images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return outputs


def tune_with(forward: Callable[..., Any], backbone: Backbone, *tasks: PackTask) -> list[Any]:
    """Outcomes of tasks in a pack with this forward pass."""
    pack = Pack(backbone, tasks, forward=forward)
    while len(pack):
        pack.step()
    return [pack.outcomes[key] for key in range(len(tasks))]


def test_a_step_that_runs_out_of_memory_is_taken_by_smaller_groups(backbone: Backbone, quick: Quick) -> None:
    tasks = [PackTask(data=make_data(12, 3, seed=n), config=quick(precision="float32")) for n in range(6)]
    expected = tune_pack(backbone, tasks)
    little = LittleMemory(most_tasks=2)
    found = tune_with(little, backbone, *tasks)
    assert little.seen[:3] == [6, 3, 1], "halved until it fits"
    assert 6 not in little.seen[1:], "what was too much is not tried again"
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


def test_only_a_task_that_does_not_fit_alone_fails(backbone: Backbone, quick: Quick) -> None:
    small = PackTask(data=make_data(12, 3, seed=1), config=quick(precision="float32"))
    large = PackTask(data=make_data(12, 3, seed=2), config=quick(batch_size=12))
    expected = tune_alone(backbone, small)
    found, error = tune_with(LittleMemory(most_tasks=9, most_images=8), backbone, small, large)
    assert isinstance(error, torch.OutOfMemoryError)
    assert is_out_of_memory(error)
    assert_same(found, expected)


def test_another_error_of_the_forward_pass_is_not_taken_for_a_lack_of_memory(
    backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    def fail(*args, **keywords):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        tune_with(fail, backbone, PackTask(data=data, config=quick()))


def test_as_many_tasks_join_as_memory_is_expected_to_hold(backbone: Backbone, quick: Quick) -> None:
    tasks = [PackTask(data=make_data(12, 3, seed=n), config=quick()) for n in range(5)]
    dtype = compute_dtype(tasks[0].config.precision, backbone.device)
    each = step_bytes(backbone.info, tasks[0].config, 12, dtype)
    pack = Pack(backbone, tasks[:1], memory_bytes=2 * each)
    assert pack.has_room_for(tasks[1])
    pack.add(tasks[1:2])
    assert not pack.has_room_for(tasks[2])
    assert Pack(backbone, memory_bytes=1).has_room_for(tasks[0]), "one is always tried"
    assert all(isinstance(found, TuneResult) for found in tune_pack(backbone, tasks, memory_bytes=2 * each))


def test_on_a_cpu_enough_images_a_step_are_enough(backbone: Backbone, quick: Quick) -> None:
    large = PackTask(data=make_data(300, 3), config=quick(batch_size=256))
    small = PackTask(data=make_data(12, 3, seed=1), config=quick())
    assert not Pack(backbone, [large], memory_bytes=1 << 40).has_room_for(small)
    assert Pack(backbone, [small], memory_bytes=1 << 40).has_room_for(large)


def test_max_fused_below_one_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="max_fused"):
        tune_pack(backbone, [], max_fused=0)


def test_a_step_takes_more_memory_with_more_of_everything(backbone: Backbone, quick: Quick) -> None:
    base = step_bytes(backbone.info, quick(), 100, torch.float32)
    assert step_bytes(backbone.info, quick(batch_size=16), 100, torch.float32) > 1.9 * base
    assert step_bytes(backbone.info, quick(batch_size=16), 8, torch.float32) == base
    assert step_bytes(backbone.info, quick(num_independent=200), 100, torch.float32) > base
    assert 2 * step_bytes(backbone.info, quick(), 100, torch.bfloat16) == base
    assert 0 < free_bytes(torch.device("cpu")) < 1 << 50


def report_with(val_loss: float | None) -> EpochReport:
    return EpochReport(
        epoch=1,
        num_epochs=9,
        loss=1.0,
        matching_loss=0.5,
        train_accuracy=0.5,
        val_accuracy=0.5,
        val_loss=val_loss,
        learning_rate=0.01,
        time_s=0.0,
    )


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([3.0, 2.0, 2.5, 2.2], 2, True),
        ([3.0, 2.0, 2.5, 1.9], 2, False),
        ([3.0, 2.0, 2.0, 2.0], 2, True),
        ([3.0, 4.0], 2, False),
        ([3.0, 4.0, 5.0], 0, False),
        ([None, None, None], 1, False),
    ],
)
def test_patience_counts_epochs_without_a_new_lowest_validation_loss(
    losses: list[float | None], patience: int, expected: bool
) -> None:
    assert has_stalled([report_with(loss) for loss in losses], patience) is expected


def test_a_task_that_stalls_ends_early_and_the_others_go_on(backbone: Backbone, quick: Quick) -> None:
    data = make_data(24, 3, num_val=12)
    settings = {"epochs": 30, "learning_rate": 0.2, "precision": "float32"}
    stalled, whole = tune_pack(
        backbone,
        [PackTask(data=data, config=quick(**settings, patience=patience)) for patience in (3, 0)],
    )
    assert isinstance(stalled, TuneResult)
    assert isinstance(whole, TuneResult)
    assert len(whole.history) == 30
    num_epochs = len(stalled.history)
    assert 4 <= num_epochs < 30
    losses = [report.val_loss for report in stalled.history]
    assert min(losses[-3:]) >= min(losses[:-3])
    assert not has_stalled(stalled.history[:-1], patience=3), "not a moment too late"


def test_patience_without_a_validation_split_is_refused(
    backbone: Backbone, data: TaskData, quick: Quick
) -> None:
    with pytest.raises(ConfigError, match="patience: 3 epochs"):
        tune(backbone, data, quick(patience=3))


def test_patience_by_the_images_that_the_result_is_measured_on_is_refused(
    backbone: Backbone, quick: Quick
) -> None:
    data = make_data(num_val=6)
    data = replace(data, test=None)
    for use in (tune, search):
        with pytest.raises(ConfigError, match="the result is measured on the same validation images"):
            use(backbone, data, quick(patience=3))


def test_precision_is_float32_or_bfloat16_or_what_the_device_multiplies_in(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    assert compute_dtype("float32", cpu) == torch.float32
    assert compute_dtype("bfloat16", cpu) == torch.bfloat16
    for capabilities, expected in [({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert compute_dtype(quick().precision, cpu) == expected
    with pytest.raises(ConfigError, match="precision: expected `auto`"):
        quick(precision="float16")


def test_bfloat16_tunes_float32_prompts_on_a_copy_of_the_backbone(quick: Quick) -> None:
    backbone, data = make_backbone(), make_data()
    settings = {"epochs": 10, "start": "published"}
    half, full = tune_pack(
        backbone,
        [PackTask(data=data, config=quick(**settings, precision=name)) for name in ("bfloat16", "float32")],
    )
    assert isinstance(half, TuneResult)
    assert isinstance(full, TuneResult)
    assert backbone.dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in half.prompt.parameters())
    # bfloat16 has 8 bits: the loss may differ by some of its last ones.
    assert half.history[0].loss == pytest.approx(full.history[0].loss, rel=0.02)
    assert half.history[-1].loss == pytest.approx(full.history[-1].loss, rel=0.1)
    assert half.history[-1].loss != full.history[-1].loss
