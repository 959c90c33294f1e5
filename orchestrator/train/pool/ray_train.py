"""The worker pool as one elastic Ray Train run whose training function is the worker loop.

Ray Train brings placement, devices, restarts and elasticity. Its ``report()`` waits for all workers and is
therefore never called: workers talk to the ledger alone.
"""

import os
from functools import partial
from pathlib import Path

import ray
import ray.train
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from orchestrator.train.pool.base import Pool
from orchestrator.train.pool.crashes import CrashReport
from orchestrator.train.pool.reservation import cancel_reservation
from orchestrator.train.pool.seat import SeatConfig, work
from orchestrator.train.pool.size import PoolSize

__all__ = ["TrainPool", "set_train_defaults"]

# Ray Train takes these from the driver's environment only. Its default of two seconds between health checks
# of the workers is long where a whole run takes minutes. Its preemption watcher warns workers that call
# `report()`; ours save snapshots anyway, and its process would take seconds of a core while they start.
_TRAIN_DEFAULTS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}

# A resize restarts every worker: not worth it more often.
RESIZE_INTERVAL_S = 600.0
# Starts of the pool that fail before a worker runs, such as a node without the code.
MAX_START_FAILURES = 10


def set_train_defaults() -> None:
    """Set our defaults for Ray Train in the environment, where unset; to be called before Ray is joined."""
    for name, value in _TRAIN_DEFAULTS.items():
        os.environ.setdefault(name, value)


class TrainPool(Pool):
    """A run of Ray Train, whose ``fit()`` blocks until all workers have returned.

    Args:
        config: Settings of every worker.
        size: Number of workers and their resources.
        folder: Folder for Ray Train's files.
    """

    def __init__(self, config: SeatConfig, size: PoolSize, folder: Path) -> None:
        self._trainer = _make_trainer(config, size, folder)
        # So does Ray Train name itself to the cluster's autoscaler.
        requester = f"train-{self._trainer.train_run_context.run_id}"
        super().__init__(release=partial(cancel_reservation, requester))

    def _look_after(self) -> None:
        self._trainer.fit()


class _ApartBackend(Backend):  # type: ignore[misc]  # Ray has no types
    # As torch's own backend, by whose devices `get_device` goes.
    share_cuda_visible_devices = True


class _Apart(TorchConfig):  # type: ignore[misc]
    """No process group: workers exchange no tensors, and its store listens on every interface."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _ApartBackend


def _make_trainer(config: SeatConfig, size: PoolSize, folder: Path) -> TorchTrainer:
    resources: dict[str, float] = {"CPU": size.cpus_per_worker}
    if size.use_gpu:
        resources["GPU"] = 1
    return TorchTrainer(
        _work,
        # A reference: to read it, the controller would import all that a worker needs.
        train_loop_config={"config": [ray.put(config)]},
        torch_config=_Apart(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(size.min_workers, size.num_workers),
            use_gpu=size.use_gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
        ),
        run_config=ray.train.RunConfig(
            name=config.run,
            storage_path=str(folder.resolve()),
            # The ledger's budgets limit restarts: each is charged to a task, or counted as in vain.
            failure_config=ray.train.FailureConfig(
                max_failures=-1, controller_failure_limit=MAX_START_FAILURES
            ),
            callbacks=[CrashReport(config.run)],
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def _work(shared: dict[str, "list[ray.ObjectRef[SeatConfig]]"]) -> None:
    """Training function that Ray Train runs on each worker."""
    context = ray.train.get_context()
    config = ray.get(shared["config"][0])
    work(config, context.get_world_rank(), context.get_world_size(), str(get_device()))
