from pathlib import Path

import pytest

from tests.factories import write_backbone, write_stripes
from tests.unit.orchestrator.train.plant import Plant


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    write_backbone(tmp_path / "backbone")
    write_stripes(tmp_path / "stripes")
    return Plant(tmp_path)
