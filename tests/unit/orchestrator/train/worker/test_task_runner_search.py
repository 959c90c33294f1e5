"""Searches of the real runner: what is reported, resumed and recorded of them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.spec import TaskSpec
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.worker.loop import LeaseLost
from orchestrator.train.worker.task_runner import SearchReporter, TuneTask
from ship.backbone import Backbone
from ship.settings.search_config import SearchConfig
from ship.tuning.search import SearchStep
from ship.tuning.tuner import Tuner
from tests.unit.orchestrator.train.worker.factory import KEY, NUM_EPOCHS, Hooks, with_note


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


def without_times(files: Mapping[str, bytes]) -> dict[str, Any]:
    """All of an artifact but its times, and the digest of the file that has them."""
    record, card = json.loads(files["record.json"]), json.loads(files["prompt.json"])
    del record["time_s"]
    for report in record["history"]:
        del report["time_s"]
    del card["metrics"]["tuning_s"], card["metrics"]["search_s"], card["files"]["record.json"]
    return {**files, "record.json": record, "prompt.json": card}


def test_a_tuning_that_was_interrupted_publishes_what_an_undisturbed_one_does(
    backbone: Backbone, store: PromptStore, spec: TaskSpec, tmp_path: Path
) -> None:
    spec = searching(spec, learning_rate=(0.02,))
    # So slow that the other candidate wins, and there is a choice to tell of.
    spec = replace(spec, config=replace(spec.config, learning_rate=1e-6, epochs=22))
    undisturbed = PromptStore(LocalObjects(tmp_path / "undisturbed"))
    expected = undisturbed.fetch(TuneTask(Tuner(backbone), undisturbed)(spec, Hooks()).digest)

    # The second snapshot is that of a tuning that was resumed itself.
    for epoch in (11, 21):
        with pytest.raises(LeaseLost):
            TuneTask(Tuner(backbone), store)(spec, Hooks(at_epoch={epoch: LeaseLost()}))
    again = Hooks()
    files = store.fetch(TuneTask(Tuner(backbone), store)(spec, again).digest)

    assert (again.epochs, again.steps) == ([21, 22], [])
    assert without_times(files) == without_times(expected)
    record, metrics = json.loads(files["record.json"]), json.loads(files["prompt.json"])["metrics"]
    assert len(record["search"]) == 2
    assert "standard error" in record["choice"]
    assert metrics["search_passes"] > 0
    assert metrics["search_s"] > 0.0


@pytest.mark.parametrize("note", [None, "{", '{"schema": 2}'], ids=["earlier", "damaged", "later"])
def test_where_a_snapshot_does_not_tell_of_its_search_the_record_says_so(
    note: str | None, backbone: Backbone, store: PromptStore, spec: TaskSpec, caplog: pytest.LogCaptureFixture
) -> None:
    spec = searching(spec, learning_rate=(0.001,))
    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, Hooks(at_epoch={11: LeaseLost()}))
    snapshot = store.snapshots.load("shade", KEY)
    assert snapshot is not None
    store.snapshots.save("shade", KEY, with_note(snapshot, note))

    again = Hooks()
    files = store.fetch(TuneTask(Tuner(backbone), store)(spec, again).digest)

    assert (again.epochs, again.steps) == ([11, 12], [])
    record, metrics = json.loads(files["record.json"]), json.loads(files["prompt.json"])["metrics"]
    assert record["search"] == []
    assert record["choice"].endswith("what they were compared with is not known.")
    assert record["choice"] in files["README.md"].decode()
    assert not {"search_passes", "search_s"} & set(metrics)
    assert ("task shade: snapshot: what the search found cannot be read" in caplog.text) == (note is not None)


def test_where_nothing_was_searched_an_earlier_snapshot_leaves_nothing_out(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    with pytest.raises(LeaseLost):
        TuneTask(Tuner(backbone), store)(spec, Hooks(at_epoch={11: LeaseLost()}))
    snapshot = store.snapshots.load("shade", KEY)
    assert snapshot is not None
    store.snapshots.save("shade", KEY, with_note(snapshot, None))

    files = store.fetch(TuneTask(Tuner(backbone), store)(spec, Hooks()).digest)

    assert json.loads(files["record.json"])["choice"] == ""
    assert json.loads(files["prompt.json"])["metrics"]["search_passes"] == 0
