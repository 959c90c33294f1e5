"""When there are traces, what a span keeps of an error, and what it costs a process that has none."""

import asyncio
import http.server
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode

from orchestrator.tracing import (
    Laps,
    begin,
    current,
    note,
    open_tracer,
    record,
    span,
    span_of_batch,
    traced_process,
    under,
)
from tests.unit.orchestrator.spans import Spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of something that takes OTLP, and what it was sent."""
    taken: list[tuple[str, bytes]] = []

    class Take(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not on standard error."""

    with http.server.HTTPServer(("127.0.0.1", 0), Take) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", taken
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "line", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
    ],
)
def test_without_a_place_to_send_them_or_when_told_so_there_are_none(environ: dict[str, str]) -> None:
    assert open_tracer(environ, "test") is None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
    ],
)
def test_what_cannot_be_done_is_said_and_stops_nothing(
    environ: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_tracer(environ, "test") is None
    assert named in caplog.text


def test_a_command_is_sent_to_the_collector_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK reads the environment itself.
    monkeypatch.setenv("OTEL_SERVICE_NAME", "line-7")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "plant=east")
    with collector() as (url, taken):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "TRACEPARENT": PARENT}
        with traced_process(environ, "driver", "ship tune"), span("plan", {"ship.tasks": 3}):
            pass
    [(path, content)] = taken
    assert path == "/v1/traces"
    for text in (b"ship tune", b"plan", b"line-7", b"east", b"driver", b"ship.tasks"):
        assert text in content
    assert bytes.fromhex(PARENT.split("-")[1]) in content


def test_a_span_is_below_that_of_its_context_and_of_none_where_there_is_none() -> None:
    spans = Spans()
    with span("alone"):
        note({"ship.task": "caps"})
        record("queue", 1.0)
        Laps("epoch").end({"ship.epoch": 1})
        assert current() is None
    with begin(None, "untraced", PARENT), span("inside"):
        pass
    assert spans.all == ()

    async def ask(name: str) -> None:
        with span(name, {"ship.task": name, "ship.version": None}):
            await asyncio.sleep(0)
            await asyncio.to_thread(note, {"ship.rows": 2})

    async def both() -> None:
        with begin(spans.tracer, "request", PARENT):
            await asyncio.gather(ask("caps"), ask("nuts"))

    asyncio.run(both())
    for name in ("caps", "nuts"):
        found = spans.one(name)
        assert spans.path(found) == ["request", name]
        assert dict(found.attributes) == {"ship.task": name, "ship.rows": 2}
        assert f"{found.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{spans.one('request').parent.span_id:016x}" == PARENT.split("-")[2]
    assert current() is None


def test_an_error_is_noted_by_its_class_without_its_text() -> None:
    spans = Spans()
    with pytest.raises(ValueError, match="secret"), begin(spans.tracer, "request", None), span("decode"):
        raise ValueError("secret")
    for name in ("request", "decode"):
        found = spans.one(name)
        assert (found.status.status_code, found.attributes["error.type"]) == (StatusCode.ERROR, "ValueError")
        assert not found.events
    assert "secret" not in spans.texts()
    with pytest.raises(SystemExit), begin(spans.tracer, "fine", None):
        sys.exit(0)
    assert spans.one("fine").status.status_code == StatusCode.UNSET


def test_a_batch_is_one_span_that_is_linked_with_all_that_it_is_done_for() -> None:
    spans = Spans()
    started = [spans.tracer.start(name) for name in ("a", "b")]
    with span_of_batch("forward", [None, *started], {"ship.rows": 3}):
        pass
    for one in started:
        one.span.end()
    forward = spans.one("forward")
    ids = [one.span.get_span_context().span_id for one in started]
    assert forward.parent.span_id == ids[0]
    assert [link.context.span_id for link in forward.links] == ids
    for name in ("a", "b"):
        assert [link.context.span_id for link in spans.one(name).links] == [forward.context.span_id]
    with span_of_batch("untraced", [None]) as found:
        assert found is None


def test_spans_that_are_over_have_their_times() -> None:
    spans = Spans()
    with begin(spans.tracer, "answer", None):
        record("queue", 2.0, 0.5)
        epochs = Laps("epoch")
        epochs.end({"ship.epoch": 1})
        epochs.end({"ship.epoch": 2})
    queue, answer = spans.one("queue"), spans.one("answer")
    assert queue.end_time - queue.start_time == 2_000_000_000
    assert queue.end_time <= answer.end_time - 400_000_000
    first, second = spans.named("epoch")
    assert first.end_time == second.start_time
    assert spans.path(second) == ["answer", "epoch"]


def test_what_is_not_sampled_where_it_came_from_is_not_sampled_here() -> None:
    spans = Spans()
    tracer = spans.new_tracer(ParentBased(ALWAYS_OFF))
    with begin(tracer, "request", PARENT.removesuffix("01") + "00") as found, span("decode"):
        assert found.traceparent.endswith("-00")
    assert spans.all == ()
    with begin(tracer, "request", PARENT), span("decode"):
        pass
    assert len(spans.all) == 2


def test_another_thread_goes_on_below_the_span_that_it_is_given() -> None:
    spans = Spans()
    with begin(spans.tracer, "answer", None):
        given = current()

    def load() -> None:
        with under(given), span("load prompt"):
            pass

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert spans.path(spans.one("load prompt")) == ["answer", "load prompt"]


ENDPOINT = "import orchestrator.serve.ingress.deployment, orchestrator.serve.engine.deployment"
# Ray Serve and FastAPI import its interface; nothing else of it may be loaded where nothing is traced.
PROGRAM = """
import sys
{before}
before = set(sys.modules)
{after}
from orchestrator.tracing import open_tracer, span
assert open_tracer({{}}, "test") is None
with span("nothing"):
    pass
print(*[name for name in set(sys.modules) - before if name.startswith("opentelemetry")])
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import fastapi, ray.serve", ENDPOINT),
        ("", "import orchestrator.train.worker.loop, orchestrator.cli.manifest"),
    ],
)
def test_off_means_that_nothing_of_it_is_imported(before: str, after: str) -> None:
    program = PROGRAM.format(before=before, after=after)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
