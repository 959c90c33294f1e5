"""How large a pool is."""

from dataclasses import dataclass

from orchestrator.train.cluster import Session

__all__ = ["PoolSize", "choose_size"]


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """How large a pool is.

    Attributes:
        num_workers: At most; it starts with fewer where the cluster has no room for all.
        cpus_per_worker: Also the number of threads that torch uses there.
        use_gpu: Whether each worker has a GPU of its own.
    """

    num_workers: int
    cpus_per_worker: int
    use_gpu: bool


def choose_size(session: Session, num_tasks: int, num_workers: int | None) -> PoolSize:
    """One worker a GPU, or a CPU where there are no GPUs; never more than tasks.

    Args:
        session: What the cluster has.
        num_tasks: To be tuned.
        num_workers: The user's wish, if any.
    """
    use_gpu = session.num_gpus > 0
    room = session.num_gpus if use_gpu else session.num_cpus
    chosen = max(1, min(num_tasks, room if num_workers is None else num_workers))
    # On several nodes an even share of the whole may fit on none of them.
    cpus = session.num_cpus // chosen if session.num_nodes == 1 else 1
    return PoolSize(num_workers=chosen, cpus_per_worker=max(1, cpus), use_gpu=use_gpu)
