"""A registry as JSON is written into another MLflow as it was, also where that is ended in the middle."""

from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

from orchestrator.errors import RegistryError
from orchestrator.registry.copied_values import read_values, write_values
from tests.unit.orchestrator.registry.factory import Stopped, World, stop_at
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry


def make_world() -> World:
    """Bolts with versions 1, 3 and 4, of which 4 serves, and a run with a curve and its data."""
    world = World()
    for number in (1, 2, 3, 4):
        world.add("bolts", number)
    world.add("nuts")
    world.rollouts().promote("bolts", 4)
    world.rollouts().start_canary("bolts", 3, 0.25)
    world.mlflow.delete_model_version("ship.bolts", "2")
    mlflow = world.mlflow
    run = mlflow.create_run("1", tags={"ship.task": "bolts"}, run_name="bolts-1", start_time=5)
    run_id = run.info.run_id
    mlflow.log_batch(
        run_id,
        metrics=[Metric(key="loss", value=1.0 / step, timestamp=step, step=step) for step in range(1, 1200)],
        params=[Param("seed", "0")],
    )
    data = Dataset(name="bolts", digest="d", source_type="local", source="{}", profile=None)
    mlflow.log_inputs(run_id, [DatasetInput(data, [InputTag("context", "tuning")])])
    mlflow.set_terminated(run_id, status="FINISHED", end_time=9)
    mlflow.versions["ship.bolts"][4].run_id = run_id
    return world


def state(mlflow: FakeMlflow) -> dict[str, Any]:
    """What an MLflow says, without ids and times that it gives."""
    own = ("ship.restored", "ship.restored_from")
    names = {run_id: run.info.run_name for run_id, run in mlflow.runs.items()}
    return {
        "models": {name: (model.tags, model.aliases) for name, model in mlflow.models.items()},
        "versions": {
            name: [(one.version, one.source, one.tags, names.get(one.run_id)) for one in versions.values()]
            for name, versions in mlflow.versions.items()
        },
        "runs": [
            (
                {key: value for key, value in run.data.tags.items() if key not in own},
                run.data.params,
                [(one.key, one.value, one.step) for one in mlflow.get_metric_history(run_id, "loss")],
                (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
                [(one.dataset.name, one.tags[0].value) for one in run.inputs.dataset_inputs],
            )
            for run_id, run in mlflow.runs.items()
        ],
        "experiment": mlflow.experiment.tags,
    }


def test_models_versions_and_runs_come_back_and_once() -> None:
    world = make_world()
    content, other = read_values(world.registry.session), FakeMlflow("b" * 32)
    for _ in range(2):
        write_values(make_registry(other).session, content)
        assert state(other) == state(world.mlflow)
    assert list(other.versions["ship.bolts"]) == [1, 3, 4]
    assert make_registry(other).session.find_identity() == "a" * 32
    assert make_registry(other).champion("bolts").version == 4


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_restoration_that_was_ended_goes_on(is_restored: bool) -> None:
    world, number = make_world(), 0
    content = read_values(world.registry.session)
    if is_restored:
        # Its runs have the marks of a restoration.
        first = FakeMlflow("c" * 32)
        write_values(make_registry(first).session, content)
        content = read_values(make_registry(first).session)
    while True:
        other = FakeMlflow("b" * 32)
        other.before = stop_at(number)
        try:
            write_values(make_registry(other).session, content)
            break
        except Stopped:
            other.before = lambda name: None
        write_values(make_registry(other).session, content)
        assert state(other) == state(world.mlflow), f"ended at call {number}"
        number += 1
    assert number > 20


def test_a_registry_with_other_versions_is_left_as_it_is() -> None:
    content = read_values(make_world().registry.session)
    other = World()
    other.add("bolts", 7)
    with pytest.raises(RegistryError, match=r"another version 1 of ship\.bolts"):
        write_values(other.registry.session, content)
    assert list(other.mlflow.versions["ship.bolts"]) == [1]
