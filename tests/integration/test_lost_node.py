"""An endpoint on several hosts: a serving node loses its power while requests are under way."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestrator.registry.registry import Registry
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.versions import FINGERPRINT_TAG
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import load_files
from ship.backbone import load_backbone
from tests.benchmarks.serve.load import open_loop, zipf
from tests.benchmarks.serve.plant import draw_jpeg, replica_pids
from tests.factories import write_backbone
from tests.integration.cluster import Cluster, clean_environment
from tests.integration.hosts import skip_without_namespaces
from tests.integration.plant import PATIENCE_S, Plant
from tests.integration.served_plant import register
from tests.unit.orchestrator.serve.factory import make_artifact

# Generous: what hangs fails by a limit of its own.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TASKS = ("bolts", "nuts", "caps")
PICTURES = [draw_jpeg(seed, (96, 80)) for seed in range(4)]
PORT = 8000
RATE, BEFORE_S, AFTER_S = 4.0, 5.0, 15.0


class Served:
    """Tasks in the cluster's store and registry, and an endpoint with a replica of each kind on each node."""

    def __init__(self, cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = cluster
        self.url = f"http://{cluster.head.address}:{PORT}"
        environment = {**clean_environment(), **cluster.variables}
        for name in [name for name in environment if name.startswith("AWS_")]:
            monkeypatch.setenv(name, environment[name])
        self.plant = Plant(folder, cluster.head.prefix)
        self.plant.environment = environment | {
            "SHIP_HOME": str(self.plant.home),
            "SHIP_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        write_backbone(folder / "backbone")
        self.digests = self._publish(folder / "backbone")

    def _publish(self, folder: Path) -> dict[str, str]:
        backbone = load_backbone(str(folder))
        store = PromptStore(open_objects(self.cluster.variables["SHIP_STORE"]))
        registry = Registry(self.cluster.variables["MLFLOW_TRACKING_URI"], may_create=True)
        digests = {}
        for seed, task in enumerate(TASKS):
            files = make_artifact(backbone, task, seed=seed)
            tags = {FINGERPRINT_TAG: backbone.fingerprint}
            version = register(store, registry, task, seed, files, tags)
            Rollouts(registry, store).promote(task, version, force=True)
            digests[task] = load_files(files).digest
        return digests

    def serve(self) -> None:
        """Start the endpoint, and leave it."""
        options = ("--name", "ship", "--backbone", str(self.plant.folder / "backbone"), "--no-auth")
        where = ("--host", "0.0.0.0", "--port", str(PORT), "--engines", "2", "--ingress", "2")
        with (self.plant.folder / "serve.log").open("w") as log:
            self._process = self.plant.start("serve", *options, *where, output=log)
        self.wait_for(2)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def wait_for(self, num_engines: int) -> None:
        """Wait until the metrics are those of so many engines."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := self._engines()) != num_engines:
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline_s, f"{found} engines\n{self.said}"
            time.sleep(0.5)

    @property
    def said(self) -> str:
        return (self.plant.folder / "serve.log").read_text()

    def is_whole(self, reply: dict[str, object], headers: dict[str, str]) -> bool:
        return reply["digest"] == self.digests[str(reply["task"])] == headers["Ship-Digest"]

    def _engines(self) -> int:
        try:
            page = httpx.get(f"{self.url}/metrics", trust_env=False, timeout=10.0)
        except httpx.HTTPError:
            return 0
        lines = page.text.splitlines() if page.status_code == 200 else []
        return sum(line.startswith("ship_engine_precision{") for line in lines)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    skip_without_namespaces()
    with Cluster(["a", "b", "c"]) as cluster:
        cluster.start_tracking()
        cluster.set_nodes(2)
        served = Served(cluster, tmp_path, monkeypatch)
        served.serve()
        try:
            yield served
        finally:
            served.stop()


def test_a_node_that_is_lost_costs_a_patient_client_no_request_and_a_new_one_takes_its_place(
    served: Served,
) -> None:
    spare = served.cluster.spare
    engines, ingresses = (set(replica_pids(f"ServeReplica:ship:{part}")) for part in ("Engine", "Ingress"))
    # The other ingress may be on the head. Each node has an engine.
    lost = next(name for name in served.cluster.nodes if ingresses & served.cluster.pids(name))
    assert engines & served.cluster.pids(lost)
    power_cut = threading.Timer(BEFORE_S, served.cluster.lose_node, [lost])
    power_cut.start()
    load = open_loop(
        served.url,
        zipf(TASKS, PICTURES),
        rate=RATE,
        duration_s=BEFORE_S + AFTER_S,
        check=served.is_whole,
        patience_s=PATIENCE_S,
    )
    power_cut.join()
    assert load.num_failed == 0, (load.statuses, load.refusals, served.said)
    assert load.mixed == []
    assert len(load.seconds) > RATE * BEFORE_S
    served.cluster.add_nodes(spare)
    served.wait_for(2)
    after = open_loop(served.url, zipf(TASKS, PICTURES), rate=RATE, duration_s=2.0, check=served.is_whole)
    assert set(after.statuses) == {200}
