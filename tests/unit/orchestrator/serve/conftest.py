"""One small backbone for all, and Ray Serve's import, which warns."""

import warnings

import pytest

from ship.backbone import Backbone, load_backbone
from ship.runtime.runtime import Runtime
from tests.factories import write_backbone

with warnings.catch_warnings():
    # Its own pydantic models are written in a way that pydantic 2.14 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ray.serve  # noqa: F401 - before a test module does


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("backbones") / "small"
    write_backbone(folder)
    return load_backbone(str(folder))


@pytest.fixture(scope="session")
def runtime(backbone: Backbone) -> Runtime:
    return Runtime(backbone, capacity_bytes=16 << 20)
