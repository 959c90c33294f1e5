"""What tracing costs a request: calls that find nothing to do, and spans that are made and thrown away."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import httpx
import torch
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.tracing import Tracer, begin, current, note, record, span, span_of_batch
from ship.backbone import load_backbone
from tests.benchmarks.harness import compare, open_report
from tests.benchmarks.options import json_option, quick_option, rounds_option
from tests.unit.orchestrator.serve.factory import Handle, draw_png, make_replica

__all__ = ["tracing"]

LEGEND = {
    "off": "a prediction through ingress and engine in this process, without traces",
    "on": "the same with spans of all that happens, which are gathered and thrown away",
    "calls": "what a prediction calls of tracing where it is off",
}
_REPEATS = 1000


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to end."""


@click.command()
@rounds_option
@quick_option
@json_option
def tracing(rounds: int | None, quick: bool, target: str | None) -> None:
    """Measure CPU time of a prediction with and without traces, and of the calls that are left without."""
    torch.set_num_threads(1)
    with open_report("tracing", LEGEND, target) as report, ExitStack() as stack:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
        tracer = Tracer(provider)
        number = 5 if quick else 40
        rows: dict[str, Callable[[], object]] = {
            "off": _asker(stack, None, number),
            "on": _asker(stack, tracer, number),
            "calls": _call_in_vain,
        }
        work = {"off": float(number), "on": float(number), "calls": float(_REPEATS)}
        case = compare(
            rows,
            [("on", "off", None), ("calls", "off", None)],
            settings={"requests": number},
            rounds=rounds or (2 if quick else 15),
            device=torch.device("cpu"),
            work=work,
            clock=time.process_time,
        )
        report.add(case)
        tracer.close()


def _asker(stack: ExitStack, tracer: Tracer | None, number: int) -> Callable[[], object]:
    backbone, png = load_backbone("bundled"), draw_png(1, (224, 224))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    replica = make_replica(backbone, folder, tracer=tracer)
    stack.callback(replica._follower.stop)

    # Queues belong to the loop that they were first used in.
    runner = stack.enter_context(asyncio.Runner())
    app = make_app(RayEngine(Handle(replica), 30.0), backbone.info, tracer=tracer)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ship") as client:
            for _ in range(number):
                reply = await client.post("/v1/predict", content=png, headers={"Ship-Task": "bolts"})
                assert reply.status_code == 200, reply.text

    return lambda: runner.run(ask())


def _call_in_vain() -> None:
    """The calls of one prediction, in their order; more than that where a prompt is loaded."""
    for _ in range(_REPEATS):
        current()
        with span("decode", {"ship.bytes": 1000}), span("ask", {"ship.task": "bolts"}, kind="client"):
            pass
        with begin(None, "answer", None, {"ship.task": "bolts", "ship.version": None}, kind="server"):
            with span("wait for prompt"):
                pass
            note({"ship.version": 1, "ship.digest": "d"})
            current()
            with span_of_batch("forward", [None], {"ship.rows": 1}):
                pass
            record("queue", 0.0, 0.0)
        record("queue", 0.0, 0.0)
