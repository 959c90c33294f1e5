from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.planning.spec import TaskSpec
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.backbone import Backbone
from ship.data import DataSource, fingerprint_data
from ship.settings.config import TuneConfig
from tests.unit.orchestrator.train.worker.factory import KEY, NUM_EPOCHS
from tests.unit.ship.factory import make_backbone


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 190)):
        (folder / label).mkdir()
        for number in range(10):
            pixels = (random.normal(level, 20, (32, 32, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return DataSource(path=str(folder))


@pytest.fixture
def spec(source: DataSource) -> TaskSpec:
    config = TuneConfig(
        epochs=NUM_EPOCHS, num_independent=2, num_shared=2, num_attribute=2, top_k=4, fallback=False
    )
    return TaskSpec(
        name="shade",
        key=KEY,
        source=source,
        config=config,
        data_fingerprint=fingerprint_data(source),
        num_images=16,
    )


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(open_objects(str(tmp_path / "store")))
