"""A backbone of four tiny blocks and pictures of stripes: enough for every fact, tuned in a second."""

from collections.abc import Callable

import pytest
from torch import Tensor

from ship.backbone import Backbone
from ship.data import TaskData
from ship.settings.config import TuneConfig
from tests.unit.ship.factory import QUICK, draw_stripes, make_backbone, make_data


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="session")
def data() -> TaskData:
    return make_data()


@pytest.fixture
def quick() -> Callable[..., TuneConfig]:
    """Settings that tune in a second."""

    def make(**settings: object) -> TuneConfig:
        return TuneConfig(**{**QUICK, **settings})

    return make


@pytest.fixture
def images() -> Tensor:
    return draw_stripes(5, 3, seed=9).images_B3HW
