"""Without store and MLflow for a while: what is in memory is served, what is not says when to come again."""

import pytest

from orchestrator.serve.options import EngineOptions
from tests.benchmarks.serve.outage import live_through_outage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

OUTAGE_S = 15.0


def test_what_is_in_memory_is_served_through_an_outage_and_the_rest_comes_back_by_itself():
    _, load, facts = live_through_outage(
        "tiny", 4, lambda plant: 5.0, OUTAGE_S, EngineOptions(load_wait_s=2.0, retry_s=1.0)
    )
    assert set(load.statuses) == {200}, load.refusals
    assert load.mixed == []
    # That the rest, and a promotion, are served afterwards is waited for.
    assert set(facts["asked meanwhile for what is not in memory"]) == {"503 task-not-loaded, Retry-After 1"}
