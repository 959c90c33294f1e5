import pytest

from orchestrator.cluster.session import Session
from orchestrator.manifest.model import PoolSettings
from orchestrator.train.pool.crashes import cause_of, is_node_death
from orchestrator.train.pool.size import PoolSize, choose_size, expect_workers


def size(
    num_workers: int, cpus: int, num_sharers: int, *, use_gpu: bool = False, min_workers: int = 1
) -> PoolSize:
    return PoolSize(
        num_workers=num_workers,
        min_workers=min_workers,
        cpus_per_worker=cpus,
        use_gpu=use_gpu,
        num_sharers=num_sharers,
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "tasks", "wish", "expected"),
    [
        (2, 0, 1, 8, None, size(2, 1, 2)),
        (2, 0, 1, 8, 2, size(2, 1, 2)),
        (2, 0, 1, 1, 2, size(1, 2, 1)),
        (64, 0, 1, 100, 4, size(4, 16, 4)),
        (64, 0, 4, 100, 4, size(4, 1, 1)),
        (64, 0, 4, 100, 6, size(6, 1, 2)),
        (64, 8, 1, 100, None, size(8, 8, 8, use_gpu=True)),
        (64, 8, 2, 100, None, size(8, 1, 4, use_gpu=True)),
        (1, 0, 1, 8, 4, size(4, 1, 4)),
    ],
)
def test_choose_size(cpus, gpus, nodes, tasks, wish, expected) -> None:
    session = Session(is_own=True, num_cpus=cpus, num_gpus=gpus, num_nodes=nodes)
    assert choose_size(session, tasks, PoolSettings(max_workers=wish)) == expected


@pytest.mark.parametrize(
    ("tasks", "wish", "expected"),
    [
        (9, PoolSettings(min_workers=2), size(2, 1, 2, min_workers=2)),
        (9, PoolSettings(min_workers=2, max_workers=6), size(6, 1, 6, min_workers=2)),
        (9, PoolSettings(min_workers=4), size(4, 1, 4, min_workers=4)),
        (1, PoolSettings(min_workers=4), size(1, 2, 1, min_workers=1)),
    ],
)
def test_a_minimum_of_workers(tasks: int, wish: PoolSettings, expected: PoolSize) -> None:
    assert choose_size(Session(is_own=True, num_cpus=2, num_gpus=0, num_nodes=1), tasks, wish) == expected


@pytest.mark.parametrize(
    ("tasks", "wish", "address", "expected"),
    [
        (9, PoolSettings(max_workers=3), None, 3),
        (9, PoolSettings(max_workers=3), "head:6379", 3),
        (2, PoolSettings(max_workers=3), None, 2),
        (0, PoolSettings(max_workers=3), None, 1),
        (9, PoolSettings(), "head:6379", None),
        (1, PoolSettings(), None, 1),
        (100_000, PoolSettings(min_workers=50_000), None, 50_000),
    ],
)
def test_the_workers_that_a_plan_counts_on(
    tasks: int, wish: PoolSettings, address: str | None, expected: int | None
) -> None:
    assert expect_workers(tasks, wish, address) == expected


def test_a_minimum_that_is_not_there_yet_is_told(caplog: pytest.LogCaptureFixture) -> None:
    session = Session(is_own=True, num_cpus=2, num_gpus=0, num_nodes=1)
    choose_size(session, 9, PoolSettings(min_workers=2))
    assert not caplog.records
    choose_size(session, 9, PoolSettings(min_workers=3, max_workers=8))
    assert caplog.messages == ["work begins when the cluster has room for 3 workers; now it has CPUs for 2"]


@pytest.mark.parametrize(
    ("flags", "manifest", "expected"),
    [
        (PoolSettings(), PoolSettings(max_workers=4), PoolSettings(max_workers=4)),
        (
            PoolSettings(max_workers=2),
            PoolSettings(min_workers=3),
            PoolSettings(min_workers=2, max_workers=2),
        ),
        (
            PoolSettings(executor="actors", max_fused=1),
            PoolSettings(executor="train", min_workers=3),
            PoolSettings(executor="actors", max_fused=1, min_workers=3),
        ),
    ],
)
def test_flags_go_over_the_manifest(
    flags: PoolSettings, manifest: PoolSettings, expected: PoolSettings
) -> None:
    assert flags.over(manifest) == expected


def test_a_cause_is_the_telling_part_of_what_ray_says() -> None:
    said = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n"
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
        "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. "
        "Some common causes include: (1) the process was killed by the OOM killer"
    )

    class WrappedError(Exception):
        health_check_failure = RuntimeError(said)

    assert cause_of(WrappedError("A worker health check failed.")) == (
        "Worker unexpectedly exits with a connection error code 2. End of file."
    )
    assert cause_of(ValueError("no such file\n  here")) == "no such file here"
    assert cause_of(ValueError()) == "ValueError"


def test_a_node_that_died_is_named_by_its_address() -> None:
    said = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: _Seat\n\tactor_id: e069\n"
        "\tpid: 1225\n\tnamespace: 4\n\tip: 10.0.0.5\nThe actor died because its node has died. Node Id: b\n"
        "\tthe actor's node was terminated unexpectedly: health check failed"
    )

    assert cause_of(RuntimeError(said)) == (
        "its node 10.0.0.5 has died: the actor's node was terminated unexpectedly: health check failed"
    )
    assert is_node_death(RuntimeError(said))
    assert not is_node_death(RuntimeError("The actor died. Worker exit detail: SIGKILL"))
