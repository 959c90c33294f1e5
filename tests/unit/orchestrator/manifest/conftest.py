from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three empty data sets, for a manifest beside them."""
    for name in ("caps", "bolts", "gears"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path
