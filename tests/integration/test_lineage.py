"""What a run in a real MLflow tells of its origin, and that writing it again changes nothing."""

import json
from dataclasses import replace
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestrator.events import Event
from orchestrator.registry.registry import Registry
from tests.integration.place import Place
from tests.unit.orchestrator.store.factory import make_event, make_key, tune

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)
LINEAGE = {"mlflow.user": "anna", "mlflow.source.git.commit": "c" * 40, "ship.manifest_digest": "d" * 64}
DATA_SET = {"fingerprint": make_key("images"), "source": "s3://plant/bolts", "num_images": 100}


def with_origin(event: Event) -> Event:
    """The event as the job sends it."""
    origin: dict[str, Any] = {"tags": {"site": "ulm", "ship.key": "forged", "mlflow.user": "eve"}}
    origin |= (
        {"lineage": LINEAGE, "data_set": DATA_SET} if event.kind == "leased" else {"tagged_s": event.time_s}
    )
    return replace(event, data={**event.data, **origin})


def inputs(client: MlflowClient, run_id: str) -> list[tuple[Any, ...]]:
    return [
        (
            found.dataset.name,
            found.dataset.digest,
            found.dataset.source_type,
            json.loads(found.dataset.source),
            json.loads(found.dataset.profile),
            {tag.key: tag.value for tag in found.tags},
        )
        for found in client.get_run(run_id).inputs.dataset_inputs
    ]


def test_runs_models_and_versions_tell_where_they_come_from(place: Place) -> None:
    key = make_key("bolts")
    events = [with_origin(event) for event in tune(place.store, "bolts", key)]
    with place.recorder() as recorder:
        recorder.handle(events)
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    champion = place.registry.champion("bolts")
    run = client.get_run(champion.run_id)
    assert run.info.user_id == "anna"
    assert LINEAGE.items() <= run.data.tags.items()
    assert (run.data.tags["site"], run.data.tags["ship.key"]) == ("ulm", key)
    assert run.data.tags["ship.backbone"] == "bundled"
    assert run.data.tags["ship.backbone_fingerprint"] == make_key("backbone")
    [data_set] = inputs(client, champion.run_id)
    assert data_set == (
        "bolts",
        make_key("images")[:36],
        "s3",
        {"uri": "s3://plant/bolts"},
        {"fingerprint": make_key("images"), "num_train": 100},
        {"mlflow.data.context": "training"},
    )
    assert champion.tags["site"] == "ulm"
    [info] = place.registry.tasks()
    assert info.own_tags == {"site": "ulm"}
    [experiment] = [found for found in client.search_experiments() if found.name == "ship"]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"

    written = (place.state(), inputs(client, champion.run_id))
    with place.recorder() as recorder:
        recorder.handle(events)
    assert (place.state(), inputs(client, champion.run_id)) == written


def test_a_failed_run_tells_it_too_and_a_second_attempt_adds_no_second_data_set(place: Place) -> None:
    key = make_key("nuts")
    first = [with_origin(make_event("leased", "nuts", key, worker="w1")), make_event("retried", "nuts", key)]
    again = [
        with_origin(make_event("leased", "nuts", key, worker="w2")),
        make_event("failed", "nuts", key, cause="broken"),
    ]
    for events in (first, again):
        with place.recorder() as recorder:
            recorder.handle(events)
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    [run] = client.search_runs([place.registry.session.experiment_id])
    assert run.info.status == "FAILED"
    assert LINEAGE.items() <= run.data.tags.items()
    assert len(inputs(client, run.info.run_id)) == 1


def test_an_experiment_of_an_earlier_version_becomes_one_of_model_training(place: Place) -> None:
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    experiment = client.create_experiment("ship", tags={"ship.registry": "a" * 32})
    _ = Registry(place.uri).session.experiment_id
    assert "mlflow.experimentKind" not in client.get_experiment(experiment).tags, "a reader writes nothing"
    _ = Registry(place.uri, may_create=True).session.experiment_id
    found = client.get_experiment(experiment)
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_experiment_tag(experiment, "mlflow.experimentKind", "genai_development")
    _ = Registry(place.uri, may_create=True).session.experiment_id
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "genai_development", (
        "a person's choice stays"
    )


def test_a_run_that_is_recorded_from_its_artifact_has_its_data(place: Place) -> None:
    *_, published = tune(place.store, "bolts")
    with place.recorder() as recorder:
        recorder.handle([published])
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    [found] = inputs(client, place.registry.champion("bolts").run_id)
    assert (found[0], found[1]) == ("bolts", make_key("images")[:36])
