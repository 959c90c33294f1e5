import pytest

from tests.unit.orchestrator.train.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    """The ledger's clock, which stands until a test moves it."""
    return Clock()
