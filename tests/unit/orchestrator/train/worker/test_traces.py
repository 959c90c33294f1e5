"""The spans of a task's attempts, below the driver's, which the lease names."""

from opentelemetry.trace import StatusCode

from orchestrator.errors import StoreError
from orchestrator.planning.spec import TaskSpec
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.worker.loop import Hooks, PublishedTask, run_worker
from orchestrator.train.worker.task_runner import TuneTask
from ship.backbone import Backbone
from ship.tuning.tuner import Tuner
from tests.unit.orchestrator.spans import Spans
from tests.unit.orchestrator.train.fakes import Clock
from tests.unit.orchestrator.train.worker.factory import NUM_EPOCHS


def test_each_attempt_is_a_span_below_the_drivers_with_data_epochs_and_publication(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    spans, clock, tries = Spans(), Clock(), []
    driver = spans.new_tracer().start("ship tune")
    ledger = Ledger([spec], LedgerPolicy(), clock, trace=driver.traceparent)
    tune = TuneTask(Tuner(backbone), store)

    def run(given: TaskSpec, hooks: Hooks) -> PublishedTask:
        tries.append(given.name)
        if len(tries) == 1:
            raise StoreError("s3://secret is away")
        return tune(given, hooks)

    def wait(seconds: float) -> None:
        clock.advance(100.0)
        if ledger.status().all_ended:
            ledger.close()

    assert run_worker(ledger, run, worker="w", sleep=wait, tracer=spans.new_tracer()) == 1
    driver.span.end()
    first, second = spans.named("task")
    assert [span.attributes["ship.attempt"] for span in (first, second)] == [1, 2]
    assert (first.status.status_code, first.attributes["error.type"]) == (StatusCode.ERROR, "StoreError")
    assert second.status.status_code == StatusCode.UNSET
    [published] = store.find_published([(spec.name, spec.key)]).values()
    assert second.attributes["ship.digest"] == published.digest
    assert {tuple(spans.path(span)) for span in spans.all if not span.name.startswith("store.")} == {
        ("ship tune",),
        ("ship tune", "task"),
        ("ship tune", "task", "load data"),
        ("ship tune", "task", "tune"),
        ("ship tune", "task", "tune", "epoch"),
        ("ship tune", "task", "publish"),
    }
    assert [span.attributes["ship.epoch"] for span in spans.named("epoch")] == list(range(1, NUM_EPOCHS + 1))
    written = [span for span in spans.named("store.put_new") if spans.path(span)[-2] == "publish"]
    assert {span.attributes["ship.key"].partition("/")[0] for span in written} == {"artifacts", "published"}
    assert "secret" not in spans.texts()


def test_a_lease_that_names_no_span_begins_none(
    backbone: Backbone, store: PromptStore, spec: TaskSpec
) -> None:
    spans = Spans()
    ledger = Ledger([spec], LedgerPolicy(), Clock())
    tune = TuneTask(Tuner(backbone), store)
    assert run_worker(ledger, tune, worker="w", sleep=lambda _: ledger.close(), tracer=spans.tracer) == 1
    assert spans.all == ()
