"""The endpoint as others start it: by ``serve deploy`` from a file, by ``serve run``, and by ``--detach``."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml

from orchestrator.cluster.variables import SERVING, variables_of_ray
from orchestrator.registry.registry import Registry
from orchestrator.serve.launch.address import choose_port
from orchestrator.serve.launch.haproxy import haproxy_ingress
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.backbone import Backbone, load_backbone
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from tests.benchmarks.serve.load import Load, open_loop, zipf
from tests.benchmarks.serve.plant import replica_pids
from tests.factories import write_backbone
from tests.integration.plant import PATIENCE_S, SHIP
from tests.unit.orchestrator.serve.factory import draw_png, make_artifact

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)
PNG = draw_png(3)
SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"


@dataclass
class Plant:
    """A store and a registry with one task, and what it has to answer."""

    folder: Path
    port: int
    expected: dict[str, float]

    @property
    def arguments(self) -> dict[str, str]:
        return {
            "backbone": str(self.folder / "backbone"),
            "auth": "false",
            "limits.timeout_s": "20",
            # That of the runtime that it is compared with, also where bfloat16 is faster.
            "engine.precision": "float32",
        }

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SHIP_", "MLFLOW_"))
        }
        home, cache = str(self.folder / "home"), str(self.folder / "cache")
        return {**inherited, "SHIP_HOME": home, "SHIP_CACHE": cache}

    def run(self, *command: str, **more: str) -> str:
        done = subprocess.run(
            command, env={**self.environment, **more}, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for_answer(self) -> None:
        """The one answer that is right, once the endpoint has come up."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (reply := self.ask()) is None or reply.status_code != 200:
            assert time.monotonic() < deadline_s, reply and reply.text
            time.sleep(0.2)
        assert reply.json()["probabilities"] == pytest.approx(self.expected, abs=1e-5)

    def deploy(self, dashboard: str, **changed: str) -> None:
        """``serve deploy`` of a file with these arguments in place of the plant's."""
        application = {
            "name": "ship",
            "route_prefix": "/",
            "import_path": "orchestrator.serve.launch.app:build",
            "args": {**self.arguments, **changed},
        }
        written = {"http_options": {"host": "127.0.0.1", "port": self.port}, "applications": [application]}
        config = self.folder / "deployed.yaml"
        config.write_text(yaml.safe_dump(written))
        self.run(str(Path(sys.executable).parent / "serve"), "deploy", str(config), "--address", dashboard)

    def is_whole(self, reply: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
        """Whether a reply is the one that is right, and its headers are of the same version."""
        named = (headers["Ship-Version"], headers["Ship-Digest"]) == (str(reply["version"]), reply["digest"])
        return named and reply["probabilities"] == pytest.approx(self.expected, abs=1e-5)

    def ask(self) -> httpx.Response | None:
        headers = {"Ship-Task": "bolts", "Content-Type": "image/png"}
        url = f"http://127.0.0.1:{self.port}/v1/predict"
        try:
            return httpx.post(url, content=PNG, headers=headers, timeout=PATIENCE_S, trust_env=False)
        except httpx.HTTPError:
            return None


def probabilities(backbone: Backbone, files: dict[str, bytes]) -> dict[str, float]:
    loaded, runtime = load_files(files), Runtime(backbone)
    image_3HW = decode_image(PNG, size=backbone.image_size, interpolation=backbone.interpolation)
    (logits_C,) = runtime.infer(image_3HW[None], [runtime.insert(loaded.prompt)])
    return dict(zip(loaded.card.labels, logits_C.double().softmax(0).tolist(), strict=True))


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    write_backbone(tmp_path / "backbone")
    backbone = load_backbone(str(tmp_path / "backbone"))
    settings = Settings.from_env({}, home=str(tmp_path / "home"))
    files = make_artifact(backbone, "bolts", 2, seed=1)
    published = PromptStore(open_objects(settings.store)).publish("bolts", "1" * 64, files)
    registry = Registry(settings.tracking_uri, settings.artifact_location, may_create=True)
    registry.register(
        "bolts", digest=published.digest, source=published.uri, run_id=None, metrics={}, tags={}
    )
    registry.set_alias("bolts", "champion", 1)
    return Plant(tmp_path, choose_port("127.0.0.1"), probabilities(backbone, files))


@pytest.fixture(params=[False])
def dashboard(plant: Plant, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Ray as an operator starts it, with the page that takes what ``serve deploy`` sends.

    Its parameter is whether HAProxy stands in front.
    """
    for name, value in plant.environment.items():
        monkeypatch.setenv(name, value)
    folder = tempfile.mkdtemp(prefix="ship-", dir="/tmp")
    try:
        port = choose_port("127.0.0.1")
        with variables_of_ray(SERVING), haproxy_ingress(None, haproxy=request.param):
            ray.init("local", num_cpus=2, include_dashboard=True, dashboard_port=port, _temp_dir=folder)
            yield f"http://127.0.0.1:{port}"
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_file_that_serve_build_wrote_is_deployed_and_serve_run_answers_alike(
    plant: Plant, dashboard: str
) -> None:
    config, bin_folder = plant.folder / "config.yaml", Path(sys.executable).parent
    plant.run(str(bin_folder / "serve"), "build", "orchestrator.serve.launch.app:app", "-o", str(config))
    written: dict[str, Any] = yaml.safe_load(config.read_text())
    (application,) = written["applications"]
    assert {entry["name"] for entry in application["deployments"]} == {"Ingress", "Engine", "CatalogPoller"}
    application |= {"import_path": "orchestrator.serve.launch.app:build", "args": plant.arguments}
    written["http_options"] = {"host": "127.0.0.1", "port": plant.port}
    config.write_text(yaml.safe_dump(written))
    plant.run(str(bin_folder / "serve"), "deploy", str(config), "--address", dashboard)
    plant.wait_for_answer()

    arguments = [f"{name}={value}" for name, value in plant.arguments.items()]
    plant.run(
        *(str(bin_folder / "serve"), "run", "orchestrator.serve.launch.app:build", *arguments),
        *("--name", application["name"], "--non-blocking"),
        RAY_ADDRESS=ray.get_runtime_context().gcs_address,
    )
    plant.wait_for_answer()


def test_a_detached_endpoint_outlives_its_command_and_is_stopped_from_another(plant: Plant) -> None:
    backbone = ("--backbone", str(plant.folder / "backbone"), "--precision", "float32")
    said = plant.run(SHIP, "serve", "--detach", *backbone, "--no-auth", "--port", str(plant.port))
    assert f"http://127.0.0.1:{plant.port}" in said
    try:
        plant.wait_for_answer()
    finally:
        plant.run(SHIP, "serve", "--stop")
    assert plant.ask() is None


def test_the_command_line_of_the_systemd_unit_answers_alike_and_ends_cleanly(plant: Plant) -> None:
    unit = (SYSTEMD / "ship-endpoint.service").read_text()
    [command] = re.findall(r"^ExecStart=\S+/ship (.+)$", unit, re.MULTILINE)
    words = command.replace("--port 8000", f"--port {plant.port}").split()
    backbone = ("--backbone", str(plant.folder / "backbone"), "--precision", "float32")
    with (plant.folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [SHIP, *words, *backbone, "--no-auth"], env=plant.environment, stdout=log, stderr=log
        )
    try:
        plant.wait_for_answer()
    finally:
        # KillMode=mixed: its first process alone is told to end.
        process.terminate()
        status = process.wait(PATIENCE_S)
    assert status == 0, (plant.folder / "serve.log").read_text()


@pytest.mark.parametrize("dashboard", [False, True], ids=["proxy", "haproxy"], indirect=True)
def test_all_replicas_are_replaced_by_those_of_another_version_without_a_failed_request(
    plant: Plant, dashboard: str
) -> None:
    plant.deploy(dashboard)
    plant.wait_for_answer()
    before = {part: set(replica_pids(f"ServeReplica:ship:{part}")) for part in ("Ingress", "Engine")}
    assert all(before.values())
    is_over, loads = threading.Event(), []

    def ask() -> None:
        # No client asks twice.
        while not is_over.is_set():
            requests = zipf(["bolts"], [PNG])
            loads.append(
                open_loop(
                    f"http://127.0.0.1:{plant.port}", requests, rate=5.0, duration_s=2.0, check=plant.is_whole
                )
            )

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        # Any argument will do: Ray Serve takes it for another version of all deployments.
        plant.deploy(dashboard, **{"limits.timeout_s": "25"})
        deadline_s = time.monotonic() + PATIENCE_S
        while any(
            not (found := set(replica_pids(f"ServeReplica:ship:{part}"))) or found & old
            for part, old in before.items()
        ):
            assert time.monotonic() < deadline_s, (before, loads)
            time.sleep(0.2)
    finally:
        is_over.set()
        asking.join()
    assert sum(load.num_failed for load in loads) == 0, _describe(loads)
    assert [load.mixed for load in loads if load.mixed] == []
    assert sum(len(load.seconds) for load in loads) > 0


def _describe(loads: list[Load]) -> list[Any]:
    return [(dict(load.statuses), load.refusals) for load in loads if load.num_failed]
