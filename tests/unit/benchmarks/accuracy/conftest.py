"""The backbone on which accuracy is measured in tests."""

import pytest
import torch

from ship.backbone import Backbone
from tests.benchmarks.synthetic import find_backbone


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return find_backbone("tiny", torch.device("cpu"))
