"""One engine replica: the backbone, all prompts, and a queue that batches rows of whatever tasks arrive."""

import asyncio
import logging
import os
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import torch

from orchestrator.cluster.loopback import keep_replica_on_loopback
from orchestrator.serve.batching.batch_wait import BatchWait
from orchestrator.serve.batching.batcher import Batcher, LateError, QueueFullError
from orchestrator.serve.engine.explain import Explainer
from orchestrator.serve.engine.forward import Row, answer_rows
from orchestrator.serve.engine_api import (
    ALL_TASKS,
    Answer,
    Ask,
    Call,
    CallReply,
    Explanation,
    Image,
    Readiness,
    Refusal,
    ResidencyStats,
    ServingState,
    TaskPage,
)
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.process_log import open_process_log
from orchestrator.serve.residency.disk_cache import with_disk_cache
from orchestrator.serve.residency.follower import CatalogFollower
from orchestrator.serve.residency.kept_catalog import open_kept_catalog
from orchestrator.serve.residency.loader import PromptLoader
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import ServedVersion
from orchestrator.serve.residency.state import describe_served
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.tracing import Span, Tracer, begin, current, note, open_tracer, record, span_of_batch
from ship.backbone import Backbone
from ship.backbone_info import BackboneInfo
from ship.precision import compute_dtype, dtype_name
from ship.runtime.runtime import Runtime

__all__ = ["EngineReplica"]

_log = logging.getLogger(__name__)
_FAULTS = ("not_loaded", "not_ready", "late", "failed", "unavailable")


class Source(Protocol):
    """A ``BackboneSource``, or what loads as it does."""

    def load(self) -> Backbone:
        """The backbone on the CPU."""
        ...


class EngineReplica:
    """The deployment's class; ``deployments`` names it. Never talks to MLflow: it follows the catalog.

    Args:
        source: Where the backbone comes from; replicas of one machine share its memory.
        store_url: URL of the store of prompts.
        num_threads: Most threads of torch; a small backbone uses fewer.
        options: Options of this replica.
        log: File for what goes wrong; None leaves it to Ray.
        is_alone: Whether the endpoint has no engines of other backbones.
        tracer: Begins spans; None for what the environment asks for.
    """

    def __init__(
        self,
        source: Source,
        store_url: str,
        num_threads: int,
        options: EngineOptions,
        log: str | None = None,
        *,
        is_alone: bool = True,
        tracer: Tracer | None = None,
    ) -> None:
        if log is not None:
            open_process_log(log)
        self._tracer = tracer or open_tracer(os.environ, "engine")
        keep_replica_on_loopback()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        backbone = source.load().to(device)
        self._info = backbone.info
        torch.set_num_threads(min(num_threads, self._info.most_threads))
        dtype = compute_dtype(options.precision, backbone.device)
        self._runtime = Runtime(backbone, dtype=dtype, capacity_bytes=options.slot_bytes)
        self._precision = dtype_name(dtype)
        store = PromptStore(open_objects(store_url))
        loader = PromptLoader(with_disk_cache(store, options), self._runtime)
        self._residency = Residency(
            loader,
            options.num_loaders,
            read_rule=loader.read_rule,
            pinned=options.pinned,
            load_wait_s=options.load_wait_s,
            retry_s=options.retry_s,
            backbone=None if is_alone else backbone.fingerprint,
        )
        kept = open_kept_catalog(store_url, options)
        self._follower = CatalogFollower(store, self._residency, kept, poll_s=options.poll_s)
        self._explainer = Explainer(self._runtime)
        self._batcher: Batcher[Row, Answer | Refusal] = Batcher(
            self._answer_rows,
            max_rows=options.max_batch_rows,
            max_waiting=options.max_waiting,
            wait=BatchWait(options.batch_wait_s),
            max_pass_s=options.max_pass_s,
            max_queue_s=options.max_queue_s,
            size_of=lambda row: row.served.slot.num_tiles,
        )
        self._follower.start()
        # A replica gets requests once this returns: one that is restarted under load must know its tasks, but
        # need not have their prompts: one that is asked for is loaded before all others.
        if not self._follower.wait_synced(options.first_sync_timeout_s):
            _log.warning("not ready after %.0f s: %s", options.first_sync_timeout_s, self._follower.problem)

    async def backbone(self) -> BackboneInfo:
        """See ``engine_api.Engine``."""
        return self._info

    async def answer(self, call: Call) -> CallReply:
        """Answer the questions of a call; one that has no turn in time is refused as late."""
        images = [image for stack in call.stacks for image in stack]
        # Without patience a load begins, and is not waited for.
        replies = await asyncio.gather(
            *(
                self._answer_one(images[ask.image], ask, left_s, left_s if call.waits else 0.0)
                for ask, left_s in zip(call.asks, call.patience_s, strict=True)
            ),
            return_exceptions=True,
        )
        return CallReply(
            replies=tuple(map(_told, replies)),
            replica=self._residency.name,
            backbone=self._info.fingerprint,
        )

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        """See ``engine_api.Engine``."""
        with self._span("explain", ask):
            served = await self._find(ask, patience_s)
            if isinstance(served, Refusal):
                return _refused(served)
            found = await self._explainer.explain(image, served, patience_s)
            if isinstance(found, Refusal):
                return _refused(found)
            return replace(found, precision=self._precision)

    async def tasks(self, page: TaskPage = ALL_TASKS) -> list[ServingState]:
        """See ``engine_api.Engine``."""
        # In a thread: a page of thousands takes a while, and so does the first one of a token's patterns.
        states = await asyncio.to_thread(self._residency.states, page)
        # Thousands of tasks with hundreds of labels each: a task's own state has them.
        return [replace(state, labels=(), view=None) for state in states]

    async def task(self, name: str) -> ServingState | Refusal | None:
        """See ``engine_api.Engine``."""
        return self._residency.state(name) or self._residency.idle_reason(name)

    async def readiness(self) -> Readiness:
        """See ``engine_api.Engine``."""
        residency, is_ready = self._residency, self._follower.is_synced
        return Readiness(
            ready=is_ready,
            detail=describe_served(residency.num_served, residency.catalog_age_s, residency.num_lost)
            if is_ready
            else self._not_ready(),
            num_served=residency.num_served,
            num_problems=residency.num_problems,
            num_loading=residency.num_loading,
            catalog_age_s=residency.catalog_age_s,
            num_lost=residency.num_lost,
            num_broken=residency.num_broken,
            precision=self._precision,
        )

    async def stats(self) -> list[ResidencyStats]:
        """See ``engine_api.Engine``: of this replica alone."""
        return [replace(self._residency.stats(), backbone=self._info.name, precision=self._precision)]

    def close(self) -> None:
        """Export the spans that have not been yet: of an engine that ends with the process of its ingress."""
        if self._tracer is not None:
            self._tracer.close()

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises."""
        # What is loaded is served all the same, and a new replica would hang in the same store.
        self._follower.check(may_hang=True)

    def _span(self, name: str, ask: Ask) -> AbstractContextManager[Span | None]:
        # What is not traced there is not traced here either.
        attributes = {"ship.task": ask.task, "ship.version": ask.version}
        return begin(self._tracer if ask.trace else None, name, ask.trace, attributes, kind="server")

    async def _answer_one(self, image: Image, ask: Ask, patience_s: float, load_s: float) -> Answer | Refusal:
        with self._span("answer", ask):
            reply = await self._answer_row(image, ask, patience_s, load_s)
            return _refused(reply) if isinstance(reply, Refusal) else reply

    async def _answer_row(self, image: Image, ask: Ask, patience_s: float, load_s: float) -> Answer | Refusal:
        start_s = time.monotonic()
        served = await self._find(ask, load_s)
        if isinstance(served, Refusal):
            return served
        note({"ship.version": served.version, "ship.digest": served.digest})
        row = Row(image=image, served=served, span=current())
        left_s = patience_s - (time.monotonic() - start_s)
        try:
            timed = await self._batcher.submit(ask.task, row, left_s)
        except QueueFullError as error:
            detail = f"too many requests wait, task {ask.task!r} has its share"
            return Refusal(reason="busy", detail=detail, wait_s=error.wait_s)
        except LateError:
            return Refusal(reason="late", detail=f"no turn came within {patience_s:g} s")
        record("queue", timed.queue_s, timed.pass_s)
        if isinstance(timed.reply, Refusal):
            return timed.reply
        return replace(timed.reply, queue_s=timed.queue_s, forward_s=timed.pass_s, precision=self._precision)

    async def _find(self, ask: Ask, patience_s: float) -> ServedVersion | Refusal:
        if not self._follower.is_synced:
            return Refusal(reason="not_ready", detail=self._not_ready())
        has_canary = self._residency.has_canary(ask.task)
        if has_canary and ask.key is None and ask.version is None and not ask.is_background:
            return Refusal(reason="no_key", detail=f"task {ask.task!r} has a canary")
        found = await self._residency.find(ask, patience_s)
        if isinstance(found, Refusal) or found.view == ask.view:
            return found
        return Refusal(
            reason="other_view",
            detail=f"version {found.version} of task {ask.task!r} sees pictures in another way",
            view=found.view,
            is_lasting=ask.version is not None or not has_canary,
        )

    async def _answer_rows(self, rows: list[Row]) -> list[Answer | Refusal]:
        with span_of_batch("forward", [row.span for row in rows], {"ship.rows": len(rows)}):
            # In a thread, so that this loop keeps taking requests for the next batch.
            return await asyncio.to_thread(answer_rows, self._runtime, rows)

    def _not_ready(self) -> str:
        # The cause is in the log: probes ask without a token, and it names the store.
        return "the catalog is being loaded" if self._follower.problem is None else "there is no catalog yet"


def _refused(refusal: Refusal) -> Refusal:
    """The refusal, noted in the span of its question; one that is no fault of the question's is an error."""
    if (asked := current()) is not None:
        asked.note({"ship.refusal": refusal.reason})
        if refusal.reason in _FAULTS:
            asked.fail(refusal.reason)
    return refusal


def _told(reply: Answer | Refusal | BaseException) -> Answer | Refusal:
    """The reply to one question; what went wrong with it costs no other of its call a reply."""
    if not isinstance(reply, BaseException):
        return reply
    if not isinstance(reply, Exception):
        raise reply
    _log.error("a question failed", exc_info=reply)
    return Refusal(reason="failed", detail=f"the forward pass failed ({type(reply).__name__})")
