"""Endpoints on a Ray cluster that others use too: none takes another's place, and one outlives its driver."""

import os
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import ray

from orchestrator.cluster.session import ray_session
from orchestrator.errors import ServeError
from orchestrator.registry.registry import Registry
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.backbone import load_backbone
from tests.factories import write_backbone
from tests.integration.plant import PATIENCE_S, SHIP, descendants
from tests.unit.orchestrator.serve.factory import draw_png, make_artifact

with warnings.catch_warnings():
    # Ray Serve's own pydantic models are written in a way that pydantic 2.14 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from orchestrator.serve.launch.address import choose_port
    from orchestrator.serve.launch.endpoint import Endpoint, start, stop
    from orchestrator.serve.launch.ray_serve import open_serve
    from orchestrator.serve.options import ServeOptions

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


@dataclass
class SharedCluster:
    """A Ray that this process started and has joined, and the settings of an endpoint on it."""

    settings: Settings
    folder: Path
    address: str
    port: int

    def start(self, name: str, port: int | None = None) -> Endpoint:
        """An endpoint with its driver in this process."""
        options = ServeOptions(
            port=self.port if port is None else port,
            name=name,
            auth=False,
            backbones=(str(self.folder / "backbone"),),
        )
        return start(self.settings, options)

    def start_driver(self, name: str) -> "subprocess.Popen[str]":
        """``ship serve`` in a process of its own."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("SHIP_", "MLFLOW_"))
        }
        place = ["--port", str(self.port), "--backbone", str(self.folder / "backbone")]
        driver = subprocess.Popen(
            [SHIP, "serve", "--name", name, *place, "--no-auth"],
            env={**inherited, "RAY_ADDRESS": self.address, "SHIP_HOME": str(self.settings.home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert driver.stdout is not None
        assert "Serving at" in driver.stdout.readline()
        return driver

    def answers(self) -> bool:
        try:
            reply = httpx.post(
                f"http://127.0.0.1:{self.port}/v1/predict",
                content=draw_png(),
                headers={"Ship-Task": "bolts", "Content-Type": "image/png"},
                timeout=PATIENCE_S,
                trust_env=False,
            )
        except httpx.HTTPError:
            return False
        return reply.status_code == 200


def engines(name: str) -> set[int]:
    return {pid for pid, title in descendants(os.getpid()) if f"ServeReplica:{name}:Engine" in title}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SharedCluster]:
    write_backbone(tmp_path / "backbone")
    backbone = load_backbone(str(tmp_path / "backbone"))
    settings = Settings.from_env({"SHIP_CACHE": str(tmp_path / "cache")}, home=str(tmp_path / "home"))
    files = make_artifact(backbone, "bolts", 2, seed=1)
    published = PromptStore(open_objects(settings.store)).publish("bolts", "1" * 64, files)
    registry = Registry(settings.tracking_uri, settings.artifact_location, may_create=True)
    registry.register(
        "bolts", digest=published.digest, source=published.uri, run_id=None, metrics={}, tags={}
    )
    registry.set_alias("bolts", "champion", 1)
    with ray_session(None, object_store_bytes=1 << 29):
        address = ray.get_runtime_context().gcs_address
        yield SharedCluster(settings, tmp_path, address, choose_port("127.0.0.1"))


def test_no_endpoint_takes_anothers_place_and_one_outlives_its_driver(cluster: SharedCluster):
    with cluster.start_driver("line-1") as driver:
        try:
            for name, port, said in (
                ("line-1", None, "an endpoint named 'line-1' is on this Ray cluster already .*process"),
                ("line-2", None, "cannot be deployed beside .*line-1.*A cluster has one endpoint"),
                ("line-2", choose_port("127.0.0.1"), f"listens at 127.0.0.1:{cluster.port}"),
            ):
                with pytest.raises(ServeError, match=said):
                    cluster.start(name, port)
            with pytest.raises(ServeError, match="no endpoint named 'line-2'"):
                stop(cluster.settings, "line-2")
            assert cluster.answers()
        finally:
            driver.kill()
    (first,) = engines("line-1")
    os.kill(first, signal.SIGKILL)

    deadline_s = time.monotonic() + PATIENCE_S
    while not (engines("line-1") - {first} and cluster.answers()):
        assert time.monotonic() < deadline_s, "no engine was started again"
        time.sleep(0.2)

    assert stop(cluster.settings, "line-1") == "line-1"
    assert not engines("line-1")
    with cluster.start("line-1"):
        assert cluster.answers()
    assert not engines("line-1")


def test_the_serve_of_a_ray_that_has_ended_is_not_taken_for_one_of_the_next():
    port = choose_port("127.0.0.1")
    for _ in range(2):
        with ray_session(None):
            assert open_serve("127.0.0.1", port, is_any_port=False).is_own
