"""Entry point of a pool's process: joins the ledger and works until the ledger dismisses it."""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from orchestrator.errors import ExecutionError
from orchestrator.tracing import open_tracer
from orchestrator.train.ledger.actor import RayLedgerClient
from orchestrator.train.worker.loop import RunnerFactory, WorkerContext, run_worker
from ship.settings.view import MAX_PIXELS
from ship.tuning.memory import usable_bytes

__all__ = ["SeatConfig", "work"]


@dataclass(frozen=True, kw_only=True)
class SeatConfig:
    """Settings of every process of a pool.

    Attributes:
        run: Name of the run, by which the ledger is found.
        backbone: Reference to ``Backbone.to_arrays()`` in Ray's object store, in a list, for Ray replaces a
            bare reference by the weights.
        store_url: URL of the store of prompts.
        make_runner: Builds the task runner; importable on every node.
        num_threads: Threads of torch.
        max_fused: Limit on tasks that a process tunes side by side; None for as many as fit and pay.
        num_sharers: Processes that share a machine's memory, where there are no GPUs.
        cache: Folder of decoded data on each node.
        cache_bytes: Limit on its size.
        max_pixels: Pixels of a picture; one with more is refused.
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
    max_pixels: int = MAX_PIXELS


def work(config: SeatConfig, seat: int, num_seats: int, device: str) -> None:
    """Take a seat of the pool and work until the ledger dismisses the worker.

    Args:
        config: Settings of the pool's processes.
        seat: Number of the seat, from 0.
        num_seats: Seats of the pool.
        device: Torch device to tune on.

    Raises:
        ExecutionError: The ledger is out of reach, or this process has become unusable.
    """
    try:
        ledger = RayLedgerClient(config.run)
    except ExecutionError:
        # The run ended while this process was being started.
        return
    # The next worker on this seat has another name: a container that is restarted may give it the same id.
    worker = f"worker-{seat}@{socket.gethostname()}:{os.getpid()}-{uuid.uuid4().hex[:8]}"
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
            max_pixels=config.max_pixels,
        )
    )
    tracer = open_tracer(os.environ, "worker")
    try:
        run_worker(ledger, run_task, worker=worker, tracer=tracer)
    finally:
        if tracer is not None:
            tracer.close()
