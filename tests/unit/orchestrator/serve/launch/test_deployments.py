"""Who gets how many CPUs."""

import pytest

from orchestrator.cluster.session import Session
from orchestrator.serve.launch.deployments import Plan
from orchestrator.serve.options import EngineOptions, Limits


def plan(
    *, is_own: bool, num_cpus: int, num_gpus: int = 0, num_replicas: int = 1, wanted: int | None = None
) -> Plan:
    return Plan(
        session=Session(is_own=is_own, num_cpus=num_cpus, num_gpus=num_gpus),
        num_replicas=num_replicas,
        num_cpus_per_replica=wanted,
        options=EngineOptions(),
        limits=Limits(),
        auth=True,
    )


@pytest.mark.parametrize(
    ("given", "reserved", "threads"),
    [
        ({"is_own": True, "num_cpus": 8, "num_replicas": 2}, 4.0, 4),
        ({"is_own": True, "num_cpus": 2, "num_replicas": 4}, 0.5, 1),
        ({"is_own": False, "num_cpus": 64}, 1.0, 1),
        ({"is_own": False, "num_cpus": 64, "wanted": 8}, 8.0, 8),
    ],
)
def test_a_ray_of_our_own_is_shared_and_others_are_asked_little(
    given: dict[str, object], reserved: float, threads: int
):
    found = plan(**given)
    assert (found.reserved_cpus, found.num_threads) == (reserved, threads)


@pytest.mark.parametrize(("gpus", "replicas", "each"), [(0, 1, 0.0), (4, 2, 1.0), (1, 2, 0.5)])
def test_devices_are_shared(gpus: int, replicas: int, each: float):
    assert plan(is_own=True, num_cpus=8, num_gpus=gpus, num_replicas=replicas).reserved_gpus == each
