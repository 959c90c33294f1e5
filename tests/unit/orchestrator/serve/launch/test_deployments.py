"""The share of CPUs and GPUs that each engine gets."""

import pytest

from orchestrator.cluster.session import Session
from orchestrator.serve.launch.deployments import EngineShare
from orchestrator.serve.options import ServeOptions


def share(
    *, is_own: bool, num_cpus: int, num_gpus: int = 0, num_replicas: int = 1, wanted: int | None = None
) -> EngineShare:
    session = Session(is_own=is_own, num_cpus=num_cpus, num_gpus=num_gpus)
    return EngineShare.of(session, ServeOptions(num_replicas=num_replicas, num_cpus_per_replica=wanted))


@pytest.mark.parametrize(
    ("given", "cpus", "threads"),
    [
        ({"is_own": True, "num_cpus": 8, "num_replicas": 2}, 4.0, 4),
        ({"is_own": True, "num_cpus": 2, "num_replicas": 4}, 0.5, 1),
        ({"is_own": False, "num_cpus": 64}, 1.0, 1),
        ({"is_own": False, "num_cpus": 64, "wanted": 8}, 8.0, 8),
    ],
)
def test_a_ray_of_our_own_is_shared_and_a_joined_one_is_asked_little(
    given: dict[str, object], cpus: float, threads: int
):
    found = share(**given)
    assert (found.cpus, found.num_threads) == (cpus, threads)


@pytest.mark.parametrize(("gpus", "replicas", "each"), [(0, 1, 0.0), (4, 2, 1.0), (1, 2, 0.5)])
def test_devices_are_shared(gpus: int, replicas: int, each: float):
    assert share(is_own=True, num_cpus=8, num_gpus=gpus, num_replicas=replicas).gpus == each
