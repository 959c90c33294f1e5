from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.manifest.model import Manifest, TaskEntry
from ship.data import DataSource
from ship.settings.config import TuneConfig


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Two tasks of two classes with ten images each."""
    entries = []
    for name in ("caps", "bolts"):
        for label in ("ok", "bad"):
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(10):
                gray = np.full((4, 4), number * 20 + len(name) + len(label), np.uint8)
                Image.fromarray(gray).save(tmp_path / name / label / f"{number}.png")
        source = DataSource(path=str(tmp_path / name))
        config = TuneConfig(epochs=10, batch_size=8, num_independent=5, fallback=False)
        entries.append(TaskEntry(name=name, source=source, config=config, tags={"site": "ulm"}))
    return Manifest(backbone="fake", store=None, tasks=tuple(entries))
