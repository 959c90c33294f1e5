"""Arguments of the endpoint as a Ray Serve application: all of its options, and errors that name a field."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ray.serve._private.build_app import build_app
from ray.serve.deployment import deployment_to_schema

from orchestrator.serve.launch.app import build
from orchestrator.serve.launch.arguments import Arguments
from orchestrator.serve.launch.deployments import DRAIN_S
from orchestrator.serve.options import EngineOptions, Limits
from orchestrator.serve.scale import Scale
from orchestrator.settings import Settings


def test_without_arguments_the_environment_says_it_all(tmp_path: Path) -> None:
    env = {"SHIP_HOME": str(tmp_path), "SHIP_STORE": "s3://plant/ship", "SHIP_CACHE": "/cache"}
    assert Arguments().settings(env) == Settings.from_env(env)
    options = Arguments().options(Settings.from_env(env))
    assert (options.backbones, options.engine, options.limits) == (("bundled",), EngineOptions(), Limits())


def test_a_command_line_gives_texts_and_paths_of_what_is_nested() -> None:
    given = {
        "engines": "2",
        "auth": "false",
        "image_size": "224",
        "limits.timeout_s": "10",
        "gpus_per_engine": "0.5",
    }
    found = Arguments.model_validate({**given, "limits.max_inside": "64", "engine.pinned": ["bolt*"]})
    options = found.options(Settings.from_env({}))
    assert (options.engines, options.auth, options.image_size) == (Scale(least=2, most=2), False, 224)
    assert options.limits == Limits(timeout_s=10.0, max_inside=64)
    assert options.engine == EngineOptions(pinned=("bolt*",))
    assert found.placement().gpus == 0.5


def test_pictures_may_be_as_large_as_in_tuning() -> None:
    settings = Settings.from_env({"SHIP_MAX_PIXELS": "150000000"})
    assert Arguments().options(settings).limits.max_pixels == 150_000_000
    given = Arguments(limits=Limits(max_pixels=1000))
    assert given.options(settings).limits.max_pixels == 1000


def test_a_file_gives_what_is_nested_as_a_mapping() -> None:
    found = Arguments.model_validate({"limits": {"timeout_s": 10}, "engine": {"slot_bytes": 1 << 20}})
    assert (found.limits.timeout_s, found.engine.slot_bytes) == (10.0, 1 << 20)


def test_arguments_win_over_the_environment() -> None:
    env = {"SHIP_STORE": "s3://plant/ship", "MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    given = Arguments(store="s3://other/ship", tracking_uri="http://other:5000", home="/home", cache="/cache")
    settings = given.settings(env)
    assert (settings.store, settings.tracking_uri) == ("s3://other/ship", "http://other:5000")
    assert (str(settings.home), settings.cache) == ("/home", "/cache")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"storee": "s3://a/b"}, "storee"),
        ({"engines": 0}, "engines"),
        ({"engines": "two"}, "engines"),
        ({"ingress": "auto"}, "ingress"),
        ({"engines": "inside"}, "engines"),
        ({"ingress": "inside", "backbone": "bundled,other"}, ""),
        ({"backbone": "bundled,"}, "backbone.1"),
        ({"backbone": ""}, "backbone"),
        ({"image_size": -1}, "image_size"),
        ({"cpus_per_engine": -1}, "cpus_per_engine"),
        ({"limits": {"timeout": 1}}, "limits.timeout"),
        ({"limits.timeout_s": "soon"}, "limits.timeout_s"),
        ({"engine": {"num_loaders": "many"}}, "engine.num_loaders"),
        ({"engine": "fast"}, "engine"),
        ({"limits": "none", "limits.timeout_s": "1"}, "limits"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Arguments.model_validate(given)
    assert field in {".".join(map(str, error["loc"])) for error in raised.value.errors()}


@pytest.mark.parametrize("field", ["store", "tracking_uri"])
@pytest.mark.parametrize(
    "url", ["s3://key:hunter2@host/ship", "http://mlflow/?token=hunter2", "postgresql://me:hunter2@db/mlflow"]
)
def test_secrets_come_from_the_environment_alone(field: str, url: str) -> None:
    with pytest.raises(ValidationError, match="SHIP_STORE or MLFLOW_TRACKING_URI") as raised:
        Arguments.model_validate({field: url})
    assert "hunter2" not in str(raised.value)


def test_every_option_of_an_endpoint_can_be_given() -> None:
    for group, options in (("limits", Limits), ("engine", EngineOptions)):
        for field in dataclasses.fields(options):
            value = getattr(options(), field.name)
            read = Arguments.model_validate({group: {field.name: value}})
            assert getattr(getattr(read, group), field.name) == value


def test_new_replicas_answer_before_old_ones_go(tmp_path: Path) -> None:
    built = build_app(build(Arguments(store=str(tmp_path))), name="ship")
    found = {one.name: deployment_to_schema(one) for one in built.deployments}
    for name in ("Ingress", "Engine"):
        assert 0 < found[name].max_surge_percent < 100
        assert found[name].graceful_shutdown_timeout_s == DRAIN_S


def test_a_replica_that_has_died_is_found_within_seconds(tmp_path: Path) -> None:
    built = build_app(build(Arguments(store=str(tmp_path))), name="ship")
    found = [deployment_to_schema(one) for one in built.deployments]
    # By default Ray Serve looks each ten seconds: so long would an endpoint of one replica answer nothing.
    assert {one.name: one.health_check_period_s for one in found} == {
        "Ingress": 2.0,
        "Engine": 2.0,
        "CatalogPoller": 2.0,
    }


def test_an_engine_inside_of_an_ingress_is_one_deployment_with_its_resources(tmp_path: Path) -> None:
    given = Arguments(
        store=str(tmp_path), ingress="inside", engines="3", cpus_per_engine=2, gpus_per_engine=1
    )
    built = build_app(build(given), name="ship")
    found = {one.name: deployment_to_schema(one) for one in built.deployments}
    assert set(found) == {"Ingress", "CatalogPoller"}
    ingress = found["Ingress"]
    assert ingress.num_replicas == 3
    assert (ingress.ray_actor_options.num_cpus, ingress.ray_actor_options.num_gpus) == (2.0, 1.0)
