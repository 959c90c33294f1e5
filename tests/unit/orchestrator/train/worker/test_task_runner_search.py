"""Searches of the real runner: what is reported, resumed and recorded of them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.planning.spec import TaskSpec
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.worker.loop import LeaseLost
from orchestrator.train.worker.task_runner import SearchReporter, TuneTask
from ship.backbone import Backbone
from ship.settings.search_config import SearchConfig
from ship.tuning.search import SearchStep
from ship.tuning.tuner import Tuner
from tests.unit.orchestrator.train.worker.factory import NUM_EPOCHS, Hooks


def searching(spec: TaskSpec, **axes: Any) -> TaskSpec:
    """The task with a search, in batches so small that half of its epochs are steps enough for a round."""
    return replace(spec, config=replace(spec.config, batch_size=3), search=SearchConfig(**axes))


def test_steps_of_a_search_are_reported(backbone: Backbone, store: PromptStore, spec: TaskSpec) -> None:
    TuneTask(Tuner(backbone), store)(searching(spec, learning_rate=(0.001,)), hooks := Hooks())
    assert [step["epoch"] for step in hooks.steps if step["is_new_round"]] == [0]
    assert (hooks.steps[-1]["round"], hooks.steps[-1]["num_candidates"]) == (1, 2)
    assert hooks.steps[-1]["epoch"] == hooks.steps[-1]["num_epochs"] == 2 * 3 * NUM_EPOCHS // 2


def test_a_long_search_makes_few_reports() -> None:
    hooks = Hooks()
    report = SearchReporter(hooks)
    step = SearchStep(
        round=1, num_rounds=2, num_candidates=8, is_new_round=False, epoch=0, num_epochs=100_000
    )
    for number in range(100_000):
        report(replace(step, epoch=number + 1))
    assert len(hooks.steps) == 100


def test_a_search_comes_first_and_is_not_made_again_after_a_snapshot(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    spec = searching(spec, learning_rate=(0.001,))
    num_checks: list[int] = []
    first = Hooks(at_epoch={11: LeaseLost()}, on_check=lambda: num_checks.append(1))
    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, first)
    # Once the data is loaded, and the round begins; two candidates, three folds, half of the epochs; then
    # one snapshot of the tuning, which is put and written.
    assert len(num_checks) == 2 + 2 * 3 * NUM_EPOCHS // 2 + 2

    again = Hooks()
    outcome = TuneTask(Tuner(backbone), store)(spec, again)

    assert again.epochs == [11, 12]
    card = json.loads(store.fetch(outcome.digest)["prompt.json"])
    assert card["config"]["learning_rate"] in (0.001, 0.02)
    assert card["config"]["epochs"] == NUM_EPOCHS


def test_the_record_says_what_was_tried(backbone: Backbone, store: PromptStore, spec: TaskSpec) -> None:
    spec = searching(spec, num_independent=(3,))
    spec = replace(spec, config=replace(spec.config, fallback=True))
    files = store.fetch(TuneTask(Tuner(backbone), store)(spec, Hooks()).digest)

    record, card = json.loads(files["record.json"]), json.loads(files["prompt.json"])
    assert [tuple(trial["settings"].values()) for trial in record["search"]] == [
        ("probe", "cls", 2),
        ("ship", "cls", 2),
        ("ship", "cls", 3),
    ]
    assert "standard error" in record["choice"]
    assert record["choice"] in files["README.md"].decode()
    chosen = card["config"]
    assert (chosen["kind"], chosen["num_independent"]) in (("probe", 2), ("ship", 2), ("ship", 3))
    assert (card["metrics"]["epochs"] == 0) == (chosen["kind"] == "probe")
