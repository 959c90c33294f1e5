"""A plant with real artifacts of a tiny backbone: three versions of `caps`, the third as an earlier ship's.

The first two were tuned on the same images, whose place MLflow knows; the labels of three held-out images are
wrong on purpose.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fastapi.testclient import TestClient

from orchestrator.console.access import Access
from orchestrator.console.app import make_app
from orchestrator.registry.runs import DataSet, RunLog
from ship.artifact.making import make_artifact
from ship.backbone import load_backbone
from ship.data import DataSource, load_task_data
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.factories import write_backbone, write_stripes
from tests.unit.orchestrator.console.factory import ORIGIN, make_console
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.store.factory import make_artifact as make_bare_artifact
from tests.unit.orchestrator.store.factory import make_key

if TYPE_CHECKING:
    from orchestrator.client import Client

__all__ = ["LABELS", "MISLABELLED", "Plant", "make_plant"]

LABELS = ("good", "scratch")
# Places of the held-out images with a wrong label: of the first class the first, of the second two.
MISLABELLED = (0, 7, 8)
CONFIG = TuneConfig(
    epochs=1, num_independent=2, num_shared=1, num_attribute=2, num_prototypes=4, threshold=0.9
)


@dataclass(frozen=True)
class Plant:
    """A plant.

    Attributes:
        root: Folder of everything.
        world: Store and registry.
    """

    root: Path
    world: World

    @property
    def data(self) -> Path:
        """Folder of the images."""
        return self.root / "caps"

    def browser(self, *, computes: bool = False, endpoint: object = None) -> TestClient:
        """A browser at a console of its own, without access control.

        Args:
            computes: Whether the console may run prompts.
            endpoint: Something like a client of an endpoint.
        """
        console = make_console(world=self.world, access=lambda clock: Access(auth=False))
        services = replace(
            console.services,
            computes=computes,
            backbone=str(self.root / "backbone"),
            endpoint=cast("Client | None", endpoint),
        )
        return TestClient(make_app(services, console.access), headers=ORIGIN, follow_redirects=False)


def make_plant(root: Path) -> Plant:
    """Tune two versions, and register three."""
    write_backbone(root / "backbone")
    write_stripes(root / "caps")
    for split in ("train", "test"):
        for place, label in enumerate(LABELS):
            (root / "caps" / split / f"direction-{place}").rename(root / "caps" / split / label)
    backbone = load_backbone(str(root / "backbone"))
    source = DataSource(path=str(root / "caps"))
    data = load_task_data(source, image_size=backbone.image_size, interpolation=backbone.interpolation)
    assert data.test is not None
    labels_B = data.test.labels_B.clone()
    labels_B[[*MISLABELLED]] = (labels_B[[*MISLABELLED]] + 1) % len(LABELS)
    mislabelled = replace(data, test=replace(data.test, labels_B=labels_B))
    world = World()
    runs = RunLog(world.registry.session)
    for number, seed in enumerate((0, 1), start=1):
        result = tune(backbone, mislabelled, replace(CONFIG, seed=seed))
        files = make_artifact("caps", backbone, mislabelled, result)
        run = runs.open("caps", make_key(str(number)), 1.7e9, {"ship.run": "first", "mlflow.user": "anna"})
        settings = source.to_public_dict()
        fingerprint = DataSet(fingerprint=data.fingerprint, source=str(source.path), settings=settings)
        runs.log_data(run, "caps", fingerprint)
        _register(world, number, files, run.run_id)
    _register(world, 3, make_bare_artifact("caps"), None)
    world.mlflow.models["ship.caps"].aliases["champion"] = "2"
    return Plant(root=root, world=world)


def _register(world: World, number: int, files: dict[str, bytes], run_id: str | None) -> None:
    digest = world.store.publish("caps", make_key(str(number)), files).digest
    metrics = json.loads(files["prompt.json"])["metrics"]
    world.registry.register(
        "caps", digest=digest, source=world.store.uri(digest), run_id=run_id, metrics=metrics, tags={}
    )
