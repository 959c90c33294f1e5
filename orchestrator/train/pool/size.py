"""Size of a worker pool, chosen from the cluster's resources and the user's limits."""

import logging
import math
import os
from dataclasses import dataclass

import torch

from orchestrator.cluster.session import Session
from orchestrator.manifest.model import PoolSettings

__all__ = ["PoolSize", "choose_size", "expect_workers"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """Size of a pool.

    Attributes:
        num_workers: Most workers; it starts with fewer where the cluster has no room for all.
        min_workers: Fewest workers with which work begins.
        cpus_per_worker: CPUs reserved for each worker, and threads of its torch.
        use_gpu: Whether each worker has a GPU of its own.
        num_sharers: Workers on one machine.
    """

    num_workers: int
    min_workers: int
    cpus_per_worker: int
    use_gpu: bool
    num_sharers: int


def choose_size(session: Session, num_tasks: int, pool: PoolSettings) -> PoolSize:
    """One worker for each GPU, or for each CPU where there are no GPUs; never more than tasks."""
    use_gpu = session.num_gpus > 0
    room = session.num_gpus if use_gpu else session.num_cpus
    wanted = max(room, pool.min_workers or 1) if pool.max_workers is None else pool.max_workers
    chosen = max(1, min(num_tasks, wanted))
    fewest = min(chosen, pool.min_workers or 1)
    if fewest > room:
        logger.warning(
            "work begins when the cluster has room for %d workers; now it has %s for %d",
            fewest,
            "GPUs" if use_gpu else "CPUs",
            room,
        )
    # On several nodes an even share of the whole may fit on none of them.
    cpus = session.num_cpus // chosen if session.num_nodes == 1 else 1
    return PoolSize(
        num_workers=chosen,
        min_workers=fewest,
        cpus_per_worker=max(1, cpus),
        use_gpu=use_gpu,
        num_sharers=math.ceil(chosen / session.num_nodes),
    )


def expect_workers(num_tasks: int, pool: PoolSettings, ray_address: str | None) -> int | None:
    """Workers that a run on this machine will have at most; None if a cluster decides that.

    Args:
        num_tasks: Tasks to tune.
        pool: The user's limits.
        ray_address: Cluster that the run would join.
    """
    if pool.max_workers is None and ray_address is not None:
        return None
    room = torch.cuda.device_count() or len(os.sched_getaffinity(0))
    return max(1, min(num_tasks, pool.max_workers or max(room, pool.min_workers or 1)))
