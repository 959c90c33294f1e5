"""Memory that runs out where an optimizer steps, after the forward pass and the gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ship.backbone import Backbone
from ship.tuning.memory import is_out_of_memory
from ship.tuning.optimizer import step_or_nothing
from ship.tuning.run import PackTask, TuneResult, tune_pack
from tests.unit.ship.factory import make_data
from tests.unit.ship.tuning.packs import Quick, assert_same

Register = Callable[[Callable[..., None]], Any]
# Before anything has moved, and after everything has.
WHEN = pytest.mark.parametrize(
    "register",
    [register_optimizer_step_pre_hook, register_optimizer_step_post_hook],
    ids=["before the step", "within it"],
)


@contextmanager
def running_out(register: Register, at: int) -> Iterator[None]:
    """Within it, an optimizer's step number ``at``, of all optimizers' together, runs out of memory."""
    calls = 0

    def refuse(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

    handle = register(refuse)
    try:
        yield
    finally:
        handle.remove()


@WHEN
@pytest.mark.parametrize(("batch_size", "at"), [(4, 1), (4, 5), (64, 2), (64, 6)])
def test_tasks_take_the_same_steps_where_an_optimizer_runs_out_of_memory(
    backbone: Backbone, quick: Quick, register: Register, batch_size: int, at: int
) -> None:
    config = quick(precision="float32", batch_size=batch_size, epochs=2)
    tasks = [PackTask(data=make_data(12, 3, seed=n), config=config) for n in range(3)]
    expected = tune_pack(backbone, tasks)
    with running_out(register, at):
        found = tune_pack(backbone, tasks)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


@WHEN
def test_a_task_alone_whose_optimizer_runs_out_of_memory_fails(
    backbone: Backbone, quick: Quick, register: Register
) -> None:
    tasks = [PackTask(data=make_data(12, 3, seed=n), config=quick(precision="float32")) for n in range(2)]
    with running_out(register, 1):
        error, other = tune_pack(backbone, tasks, max_fused=1)
    assert isinstance(error, torch.OutOfMemoryError)
    assert is_out_of_memory(error)
    assert isinstance(other, TuneResult)


@pytest.mark.parametrize("num_steps", [0, 2])
def test_a_step_that_is_refused_half_way_leaves_weights_and_moments(num_steps: int) -> None:
    weights = [torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], lr=0.1)

    def state() -> list[torch.Tensor]:
        moments = [value for own in optimizer.state.values() for value in own.values()]
        return [value.detach().clone() for value in [*weights, *moments]]

    for weight in weights:
        weight.grad = torch.full_like(weight, 0.5)
    for _ in range(num_steps):
        step_or_nothing(optimizer)
    before = state()
    optimizer.param_groups[1]["betas"] = "refused"  # the first weight has moved by then
    with pytest.raises(ValueError, match="unpack"):
        step_or_nothing(optimizer)
    after = state()
    assert len(after) == len(before)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(after, before, strict=True))
