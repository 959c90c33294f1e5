"""The pool of workers: one elastic Ray Train run whose training function is the worker loop.

Ray Train brings placement, devices, restarts and elasticity. Its ``report()`` waits for all workers and is
therefore never called: workers talk to the ledger alone.
"""

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from orchestrator.errors import ExecutionError
from orchestrator.settings import Settings
from orchestrator.train.cluster import Session
from orchestrator.train.crash_report import CrashReport
from orchestrator.train.ray_ledger import RayLedgerClient
from orchestrator.train.worker import RunnerFactory, WorkerContext, run_worker

__all__ = ["Pool", "PoolSize", "choose_size"]

# A resize restarts every worker: not worth it more often.
RESIZE_INTERVAL_S = 600.0
# Starts of the pool that fail before a worker runs, such as a node without the code.
MAX_START_FAILURES = 10


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


class Pool:
    """A running pool. ``fit()`` blocks until all workers have returned, so it has a thread of its own.

    Args:
        run: Name of the run, by which workers find the ledger.
        size: How many workers, and what each has.
        backbone: ``Backbone.to_arrays()``, in Ray's object store.
        store_url: Of the store of prompts.
        settings: Where nodes keep decoded data.
        make_runner: Builds each worker's task runner; must be importable on the workers.
        folder: Where Ray Train may write.
    """

    def __init__(
        self,
        *,
        run: str,
        size: PoolSize,
        backbone: "ray.ObjectRef[Any]",
        store_url: str,
        settings: Settings,
        make_runner: RunnerFactory,
        folder: Path,
    ) -> None:
        self.error: BaseException | None = None
        # The reference travels inside a list: given as it is, Ray would hand over the weights themselves.
        config = {
            "run": run,
            "backbone": [backbone],
            "store_url": store_url,
            "make_runner": make_runner,
            "cache": settings.cache,
            "cache_bytes": settings.cache_bytes,
            "num_threads": size.cpus_per_worker,
        }
        self._trainer = _make_trainer(run, size, config, folder)
        self._thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether any worker may still be at work."""
        return self._thread.is_alive()

    def wait(self, timeout_s: float) -> bool:
        """Wait for all workers to return; False if they have not by then."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        # The thread's end of the line: the driver reads `error` and raises what fits.
        except BaseException as error:
            self.error = error


def _make_trainer(run: str, size: PoolSize, config: Mapping[str, Any], folder: Path) -> TorchTrainer:
    resources: dict[str, float] = {"CPU": size.cpus_per_worker}
    if size.use_gpu:
        resources["GPU"] = 1
    return TorchTrainer(
        _work,
        train_loop_config=dict(config),
        # No tensor ever goes from worker to worker, and gloo needs no device to say so.
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(1, size.num_workers),
            use_gpu=size.use_gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
        ),
        run_config=ray.train.RunConfig(
            name=run,
            storage_path=str(folder.resolve()),
            # The ledger's budgets bound restarts: each is charged to a task, or counted as in vain.
            failure_config=ray.train.FailureConfig(
                max_failures=-1, controller_failure_limit=MAX_START_FAILURES
            ),
            callbacks=[CrashReport(run)],
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """What Ray Train runs on each worker."""
    try:
        ledger = RayLedgerClient(config["run"])
    except ExecutionError:
        # The run is over, and this group was started behind its back.
        return
    context = ray.train.get_context()
    rank = context.get_world_rank()
    # A successor on the same seat has another process, and so another name.
    worker = f"worker-{rank}@{socket.gethostname()}:{os.getpid()}"
    ledger.join(worker, rank, context.get_world_size())
    torch.set_num_threads(config["num_threads"])
    header, arrays = ray.get(config["backbone"][0])
    run_task = config["make_runner"](
        WorkerContext(
            header=header,
            arrays=arrays,
            store_url=config["store_url"],
            device=str(get_device()),
            cache=Path(config["cache"]).expanduser(),
            cache_bytes=config["cache_bytes"],
        )
    )
    run_worker(ledger, run_task, worker=worker)
