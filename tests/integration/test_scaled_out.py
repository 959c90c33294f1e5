"""Two backbones behind two ingresses on a real Ray Serve: one header suffices, whichever of them answers."""

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import FINGERPRINT_TAG
from orchestrator.settings import Settings
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.backbone import Backbone, load_backbone
from tests.benchmarks.serve.load import open_loop, zipf
from tests.benchmarks.serve.plant import draw_jpeg, replica_pids, wait_for_replicas
from tests.factories import write_backbone
from tests.integration.served_plant import register
from tests.unit.orchestrator.serve.factory import make_artifact

with warnings.catch_warnings():
    # Ray Serve's own pydantic models are written in a way that pydantic 2.14 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from orchestrator.serve.launch.endpoint import Endpoint, start
    from orchestrator.serve.options import Limits, ServeOptions
    from orchestrator.serve.scale import Scale

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

PATIENCE_S = 90.0
PICTURES = [draw_jpeg(seed, (96, 80)) for seed in range(4)]
TWO = Scale(least=2, most=2)


class Plant:
    """An endpoint of two backbones; ``bolts`` starts on the first one, ``nuts`` on the second one."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings.from_env({"SHIP_CACHE": str(folder / "cache")}, home=str(folder / "home"))
        self.store = PromptStore(open_objects(self.settings.store))
        self.registry = Registry(self.settings.tracking_uri, may_create=True)
        self.rollouts = Rollouts(self.registry, self.store)
        self.folders = [folder / "small", folder / "large"]
        write_backbone(self.folders[0], seed=0)
        write_backbone(self.folders[1], seed=1, img_size=48)
        self.small, self.large = (load_backbone(str(one)) for one in self.folders)
        self.request_log = folder / "requests.jsonl"
        self.answers: dict[tuple[str, int], tuple[str, str]] = {}
        self.endpoint: Endpoint | None = None
        self.promote("bolts", self.register("bolts", 1, self.small))
        self.promote("nuts", self.register("nuts", 2, self.large))

    def register(self, task: str, seed: int, backbone: Backbone) -> int:
        files = make_artifact(backbone, task, seed=seed)
        tags = {FINGERPRINT_TAG: backbone.fingerprint}
        version = register(self.store, self.registry, task, seed, files, tags)
        self.answers[task, version] = load_files(files).digest, backbone.fingerprint
        return version

    def promote(self, task: str, version: int) -> None:
        self.rollouts.promote(task, version, force=True)

    def is_whole(self, reply: dict[str, object], headers: dict[str, str]) -> bool:
        """Whether task, version, digest and backbone of a reply belong together."""
        found = reply["digest"], reply["backbone"]
        return (
            found
            == self.answers[reply["task"], reply["version"]]
            == (
                headers["Ship-Digest"],
                headers["Ship-Backbone"],
            )
        )

    def get(self, path: str) -> httpx.Response:
        assert self.endpoint is not None
        # A connection of its own each time: it reaches either ingress.
        reply = httpx.get(f"{self.endpoint.url}{path}", trust_env=False, timeout=PATIENCE_S)
        assert reply.status_code == 200, reply.text
        return reply


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    plant = Plant(tmp_path_factory.mktemp("scaled"))
    options = ServeOptions(
        port=0,
        name="ship",
        auth=False,
        backbones=tuple(map(str, plant.folders)),
        ingresses=TWO,
        limits=Limits(request_log=str(plant.request_log), probe_keep_s=0.0),
    )
    with start(plant.settings, options) as plant.endpoint:
        yield plant


def test_a_promotion_to_the_other_backbone_and_a_killed_ingress_cost_no_request(plant: Plant) -> None:
    assert plant.endpoint is not None
    version = plant.register("bolts", 3, plant.large)
    ingresses = replica_pids("ServeReplica:ship:Ingress")
    assert len(ingresses) == 2

    def disturb() -> None:
        plant.promote("bolts", version)
        os.kill(ingresses[0], signal.SIGKILL)

    disturbance = threading.Timer(3.0, disturb)
    disturbance.start()
    load = open_loop(
        plant.endpoint.url,
        zipf(["bolts", "nuts"], PICTURES),
        rate=8.0,
        duration_s=8.0,
        check=plant.is_whole,
        patience_s=PATIENCE_S,
    )
    disturbance.join()
    assert load.num_failed == 0, load.statuses
    assert load.mixed == []
    deadline_s = time.monotonic() + PATIENCE_S
    while (state := plant.get("/v1/tasks/bolts").json())["version"] != version:
        assert time.monotonic() < deadline_s, state
        time.sleep(0.2)
    assert state["backbone"]["fingerprint"] == plant.large.fingerprint
    wait_for_replicas(2, PATIENCE_S, gone=ingresses[0], deployment="Ingress")


def test_every_page_of_metrics_has_both_ingresses_and_the_engines_of_both_backbones(plant: Plant) -> None:
    def seen(page: str, label: str) -> set[str]:
        return {
            line.partition(f'{label}="')[2].partition('"')[0] for line in page.splitlines() if label in line
        }

    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        pages = [plant.get("/metrics").text for _ in range(6)]
        if all(len(seen(page, "ingress")) == 2 for page in pages):
            break
        assert time.monotonic() < deadline_s, pages[0]
        time.sleep(0.2)
    for page in pages:
        assert seen(page, "backbone") == {"small", "large"}
    assert sorted(row["task"] for row in plant.get("/v1/tasks").json()["tasks"]) == ["bolts", "nuts"]
    assert plant.get("/readyz").json()["num_served"] == 2


def test_lines_of_several_ingresses_are_whole(plant: Plant) -> None:
    lines = plant.request_log.read_text().splitlines()
    assert lines
    assert all(json.loads(line)["route"] for line in lines)
