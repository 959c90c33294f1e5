"""A residency whose loads are told what to do."""

import pytest

from orchestrator.serve.residency.residency import Residency
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot
from tests.unit.orchestrator.serve.factory import make_served
from tests.unit.orchestrator.serve.residency.factory import Clock, Loader


@pytest.fixture(scope="module")
def slot(runtime: Runtime) -> Slot:
    return make_served(runtime, "any").slot


@pytest.fixture
def load(slot: Slot) -> Loader:
    return Loader(slot)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def residency(load: Loader, clock: Clock) -> Residency:
    return Residency(load, retry_s=10.0, clock=clock)
