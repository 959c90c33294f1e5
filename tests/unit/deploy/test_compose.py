"""deploy/compose without an engine: its shape, by the schema of Compose files, and what containers get."""

import copy
import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.deploy.dockerfile import DOCKERFILE, read_stages
from tests.unit.deploy.manifests import DEPLOY, check_command

COMPOSE = DEPLOY / "compose"
FILE = COMPOSE / "compose.yaml"
COMPOSED: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSED["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
LASTING = sorted(name for name, service in SERVICES.items() if "restart" in service)
each_service = pytest.mark.parametrize("name", sorted(SERVICES))
needs_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="docker-compose is not here"
)


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    """The schema of Compose files, as a linter brings it along."""
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    return jsonschema.Draft202012Validator(json.loads(vendored.read_text()))


def test_the_file_has_the_shape_of_a_compose_file(schema: jsonschema.Draft202012Validator) -> None:
    assert [error.message for error in schema.iter_errors(COMPOSED)] == []


def test_a_misspelt_key_would_be_found(schema: jsonschema.Draft202012Validator) -> None:
    broken = copy.deepcopy(COMPOSED)
    broken["services"]["endpoint"]["readonly"] = True
    (error,) = schema.iter_errors(broken)
    assert "readonly" in error.message


@needs_compose
def test_compose_reads_its_file() -> None:
    done = subprocess.run(
        ["docker-compose", "-f", str(FILE), "config", "-q"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_all_parts_of_a_plant_are_there() -> None:
    parts = {"endpoint", "tune", "mlflow", "postgres", "seaweedfs", "bucket", "prometheus", "grafana"}
    assert set(SERVICES) == parts
    assert set(LASTING) == parts - {"tune", "bucket"}


@each_service
def test_a_container_changes_nothing_but_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert any(place.startswith("/tmp") for place in service["tmpfs"])


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_what_the_image_needs(name: str) -> None:
    service = SERVICES[name]
    version = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"]
    assert service["image"] == f"ship:${{SHIP_VERSION:-{version}}}"
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["shm_size"] == "2gb"
    # The drain takes 20 s.
    assert int(service["stop_grace_period"].removesuffix("s")) >= 60
    assert (COMPOSE / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DOCKERFILE)
    arguments = {value for stage in read_stages(DOCKERFILE.read_text()) for value in stage.all("ARG")}
    assert set(service["build"]["args"]) <= {value.partition("=")[0] for value in arguments}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_says_whether_it_is_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert check["interval"]
    assert check["timeout"]
    assert check["start_period"]


def test_our_health_check_is_the_image_s() -> None:
    (_, command) = read_stages(DOCKERFILE.read_text())[-1].last("HEALTHCHECK").split(" CMD ")
    for name in ("endpoint", "mlflow"):
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", *json.loads(command)]


@each_service
def test_a_service_waits_for_what_it_needs_until_that_is_well(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_healthy" if "healthcheck" in SERVICES[other] else "service_completed_successfully"
        assert how["condition"] == expected


def test_ports_are_published_on_loopback_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_file_that_a_container_mounts_is_there() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    found = [volume.split(":")[0] for volume in mounted if volume.startswith(".")]
    assert found
    assert all((COMPOSE / path).exists() for path in found)


def test_named_volumes_are_declared_and_used() -> None:
    mounted = [
        volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"] if volume
    ]
    assert {name for name in mounted if re.fullmatch(r"\w+", name)} == set(COMPOSED["volumes"])


def test_commands_of_ship_are_commands() -> None:
    for name in ("endpoint", "tune"):
        check_command(SERVICES[name]["command"])


def addresses(value: Any) -> list[str]:
    return re.findall(r"(?:http|s3|postgresql)[+\w]*://(?:\w+@)?([\w.]+)", json.dumps(value))


def test_services_name_each_other_rightly() -> None:
    scraped = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())["scrape_configs"]
    targets = [
        target.split(":")[0]
        for job in scraped
        for part in job["static_configs"]
        for target in part["targets"]
    ]
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    named = {*addresses(SERVICES), *targets, *addresses(sources)}
    assert named == {"mlflow", "postgres", "seaweedfs", "prometheus", "endpoint", "127.0.0.1", "ship"}


def test_mlflow_answers_by_the_name_that_others_ask_it_by() -> None:
    """It refuses, with 403, hosts that it was not told of."""
    asked = SERVICES["endpoint"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    (allowed,) = re.findall(r"--allowed-hosts=(\S+)", SERVICES["mlflow"]["command"][0])
    health = SERVICES["mlflow"]["environment"]["SHIP_HEALTH_URL"]
    assert {asked, health.split("/")[2]} <= set(allowed.split(","))


def test_no_environment_and_no_command_holds_a_secret() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASS|SECRET|TOKEN|KEY|CREDENTIAL", name):
                assert value.startswith("/run/secrets/"), name
    assert not re.search(r"\$\{\w*(KEY|SECRET|PASSWORD|TOKEN)\b", FILE.read_text())


@each_service
def test_a_container_gets_the_secrets_that_it_reads_and_no_other(name: str) -> None:
    service = SERVICES[name]
    read = set(re.findall(r"/run/secrets/(\w+)", json.dumps(service)))
    if name == "prometheus":
        read |= set(re.findall(r"/run/secrets/(\w+)", (COMPOSE / "prometheus.yaml").read_text()))
    assert read == set(service.get("secrets", ()))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    make(folder)
    return folder


def make(folder: Path) -> None:
    subprocess.run(
        [str(COMPOSE / "make-secrets")],
        env={**os.environ, "SECRETS_FOLDER": str(folder)},
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_secrets_are_made_at_random_in_a_folder_of_their_owner_alone(made: Path, tmp_path: Path) -> None:
    declared = {Path(secret["file"].rstrip('"')).name for secret in COMPOSED["secrets"].values()}
    assert {path.name for path in made.iterdir()} == declared
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    # A container reads its file as a user of its own.
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in made.iterdir())
    make(tmp_path / "other")
    for name in declared - {"metrics-token"}:
        assert (made / name).read_text() != (tmp_path / "other" / name).read_text()


def test_secrets_that_are_there_stay(made: Path) -> None:
    (made / "metrics-token").write_text("ship_token")
    (made / "grafana-password").unlink()
    before = {path.name: path.read_text() for path in made.iterdir()}
    make(made)
    after = {path.name: path.read_text() for path in made.iterdir()}
    assert after | before == after
    assert len(after["grafana-password"]) == 48


def test_the_store_and_its_clients_have_one_key(made: Path) -> None:
    (identity,) = json.loads((made / "store-identities").read_text())["identities"]
    (pair,) = identity["credentials"]
    text = (made / "store-credentials").read_text()
    assert dict(re.findall(r"(\w+) = (\w+)", text)) == {
        "aws_access_key_id": pair["accessKey"],
        "aws_secret_access_key": pair["secretKey"],
    }
    assert "Admin" in identity["actions"]


@pytest.mark.parametrize("place", ["deploy/compose/secrets/database-password", "deploy/compose/manifest/x"])
def test_git_takes_none_of_it(place: str) -> None:
    done = subprocess.run(["git", "check-ignore", "-q", place], cwd=DEPLOY.parent, timeout=60)
    assert done.returncode == 0
