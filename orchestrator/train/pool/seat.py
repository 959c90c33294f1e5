"""What one process of a pool does, whoever started it: joins the ledger and works until nothing is left."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from orchestrator.errors import ExecutionError
from orchestrator.train.ledger.actor import RayLedgerClient
from orchestrator.train.worker.loop import RunnerFactory, WorkerContext, run_worker
from ship.tuning.memory import usable_bytes

__all__ = ["SeatConfig", "work"]


@dataclass(frozen=True, kw_only=True)
class SeatConfig:
    """What every process of a pool is told.

    Attributes:
        run: Name of the run, by which the ledger is found.
        backbone: One reference to ``Backbone.to_arrays()`` in Ray's object store. It travels inside a list:
            given as it is, Ray would hand over the weights themselves.
        store_url: Of the store of prompts.
        make_runner: Builds the task runner; importable on every node.
        num_threads: Of torch.
        max_fused: How many tasks a process may tune side by side; None for as many as fit and pay.
        num_sharers: Processes that share a machine's memory, where there are no GPUs.
        cache: Folder of decoded data on each node.
        cache_bytes: The most that it may hold.
    """

    run: str
    backbone: "list[ray.ObjectRef[Any]]"
    store_url: str
    make_runner: RunnerFactory
    num_threads: int
    max_fused: int | None
    num_sharers: int
    cache: str
    cache_bytes: int


def work(config: SeatConfig, seat: int, num_seats: int, device: str) -> None:
    """Take a seat of the pool and work until the ledger has nothing left.

    Args:
        config: As all processes of the pool have it.
        seat: Of ``num_seats``, from 0.
        num_seats: Of the pool.
        device: Where to tune, as torch names it.

    Raises:
        ExecutionError: The ledger is out of reach, or this process is unfit for more.
    """
    try:
        ledger = RayLedgerClient(config.run)
    except ExecutionError:
        # The run is over, and this process was started behind its back.
        return
    # A successor on the same seat has another process, and so another name.
    worker = f"worker-{seat}@{socket.gethostname()}:{os.getpid()}"
    ledger.join(worker, seat, num_seats)
    torch.set_num_threads(config.num_threads)
    header, arrays = ray.get(config.backbone[0])
    run_task = config.make_runner(
        WorkerContext(
            header=header,
            arrays=arrays,
            store_url=config.store_url,
            device=device,
            max_fused=config.max_fused,
            memory_bytes=None if device != "cpu" else usable_bytes(torch.device(device), config.num_sharers),
            cache=Path(config.cache).expanduser(),
            cache_bytes=config.cache_bytes,
        )
    )
    run_worker(ledger, run_task, worker=worker)
