"""A batch of tasks that `ship tune` is run on, once or again, and what must hold of it after any fault."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from mlflow import MlflowClient

from orchestrator.errors import ExecutionError
from orchestrator.events import Event
from orchestrator.registry.registry import Registry
from orchestrator.registry.runs import KEY_TAG, TASK_TAG
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.ledger.status import TaskStatus
from orchestrator.train.run.view import RunView
from tests.factories import write_backbone, write_stripes
from tests.integration.plant import Plant

if TYPE_CHECKING:
    import subprocess

__all__ = ["EPOCHS", "WRITTEN", "Batch", "place_of"]

Found = TypeVar("Found")
# So few that a run's log has each of them, so slow (steps of four images) that a fault hits one of them,
# although the driver tells of them late: in between it records what is published.
EPOCHS, NUM_TRAIN, BATCH_SIZE = 19, 80, 4
# The epoch that is kept: of those after it, a tuning that was cut off repeats all.
SNAPSHOT = 10
# It is written beside the tuning: by the end of this epoch it is in the store, if the store takes it.
WRITTEN = SNAPSHOT + 2
# Of a run that hangs; no fault takes that long, on however slow a machine.
PATIENCE_S = 400.0


class Batch:
    """Tasks with data in a folder, and the runs that tune them.

    Args:
        plant: Where, and how the command is run.
        tasks: Their names.
        store_url: A place of their own in the store.
        tracking_uri: MLflow's.

    Attributes:
        events: Events of the runs that are over.
    """

    def __init__(self, plant: Plant, tasks: Sequence[str], store_url: str, tracking_uri: str) -> None:
        self.tasks = tuple(tasks)
        self.events: list[Event] = []
        self._plant = plant
        self._objects = open_objects(store_url)
        self._tracking_uri = tracking_uri
        self._output = plant.folder / "output"
        self._runs: list[subprocess.Popen[str]] = []
        write_backbone(plant.folder / "backbone")
        for task in tasks:
            write_stripes(plant.folder / task, num_train=NUM_TRAIN)
        self._manifest = str(plant.write_manifest(list(tasks), epochs=EPOCHS, batch_size=BATCH_SIZE))

    # Runs.

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """`ship tune`; returns once it is at work."""
        with self._output.open("w") as output:
            run = self._plant.start("tune", self._manifest, *options, output=output)
        self._runs.append(run)
        self.wait_until("it is at work", run, lambda: self._driver() == run.pid)
        return run

    def finish(self, run: "subprocess.Popen[str]") -> str:
        """Wait for its end, whichever; returns what it printed."""
        run.wait(PATIENCE_S)
        self.events += self.log()
        return self.output()

    def kill(self, run: "subprocess.Popen[str]") -> None:
        """End its driver without a warning."""
        run.kill()
        self.finish(run)

    def end(self) -> None:
        """Leave no run behind, such as one that a failed test was waiting for."""
        for run in self._runs:
            run.kill()
            run.wait()

    def wait_until(self, what: str, run: "subprocess.Popen[str]", look: Callable[[], Found]) -> Found:
        """Look again and again while the run is at work; returns what was found."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not (found := look()):
            assert run.poll() is None, f"it ended before {what}:\n{self.output()}"
            assert time.monotonic() < deadline_s, f"not yet: {what}:\n{self.output()}"
            time.sleep(0.2)
        return found

    def wait_for_loss(self, run: "subprocess.Popen[str]") -> TaskStatus:
        """Wait until there is something to lose: a task is published, one is half done. Returns that one."""
        return self.wait_until(
            "a task is published, another half done",
            run,
            lambda: self.half_done() if self.published() else [],
        )[0]

    def output(self) -> str:
        """Output of the run so far."""
        return self._output.read_text()

    def log(self) -> list[Event]:
        """Events of the run so far."""
        return list(self._view.events())

    def published(self) -> int:
        """Number of tasks that the run has published so far."""
        return sum(event.kind == "published" for event in self.log())

    def at_work(self) -> list[TaskStatus]:
        """Tasks that a worker has now."""
        found = self._view.status()
        return [] if found is None else [status for status in found[0].tasks if status.state == "leased"]

    def just_begun(self) -> list[TaskStatus]:
        """Those of them that will be at work for a while."""
        return [status for status in self.at_work() if status.epoch < EPOCHS / 3]

    def half_done(self) -> list[TaskStatus]:
        """Those of them that have a snapshot, and epochs to lose."""
        return [status for status in self.at_work() if WRITTEN < status.epoch < EPOCHS - 1]

    @property
    def _view(self) -> RunView:
        """The run that is at work, or was last: each has a folder of its own."""
        return RunView(self._plant.home)

    def _driver(self) -> int | None:
        with suppress(ExecutionError):
            return self._view.about().pid
        return None

    # What must hold in the end.

    def check_published_once(self, num_cut_off: int = 0) -> None:
        """Every task has one publication in the store, and nothing else is left there.

        An attempt that was cut off may have written its artifact and not published it any more.

        Args:
            num_cut_off: Attempts of an earlier run that were, while they published.
        """
        markers = Counter(key.split("/")[1] for key in self._objects.list("published/"))
        assert markers == Counter(self.tasks)
        assert list(self._objects.list("snapshots/")) == []
        publications = PromptStore(self._objects).all_published().values()
        artifacts = {key.split("/")[1] for key in self._objects.list("artifacts/")}
        published = {publication.digest for publication in publications}
        assert published <= artifacts
        assert len(artifacts - published) <= len(self.causes("retried")) + num_cut_off

    def check_epochs(self, without_snapshot: Collection[str] = ()) -> None:
        """No finished task was taken up again; one that was cut off went on from its snapshot.

        Args:
            without_snapshot: Tasks that may have had none, because the store was away or full.
        """
        for task in self.tasks:
            furthest, last, is_published = 0, None, False
            for event in (event for event in self.events if event.task == task):
                assert not is_published, f"{task} was published before {event}"
                if event.kind == "leased":
                    last = None
                elif event.kind == "epoch":
                    epoch = int(event.data["epoch"])
                    had_snapshot = furthest > WRITTEN and task not in without_snapshot
                    starts = {SNAPSHOT + 1} if had_snapshot else {1, SNAPSHOT + 1}
                    assert epoch in (starts if last is None else {last + 1}), f"{task}: {last}, then {event}"
                    furthest, last = max(furthest, epoch), epoch
                elif event.kind == "published":
                    # Without an epoch where the last attempt died between the store and the ledger.
                    assert last in (EPOCHS, None), f"{task} was published after epoch {last}"
                    is_published = True

    def check_records(self) -> None:
        """MLflow has one finished run, all epochs, one version and the champion of every task."""
        registry, client = Registry(self._tracking_uri), MlflowClient(self._tracking_uri, self._tracking_uri)
        published = PromptStore(self._objects).all_published()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments)
        for (task, key), publication in published.items():
            about = {TASK_TAG: task, KEY_TAG: key}
            [run] = [run for run in runs if about.items() <= run.data.tags.items()]
            assert run.info.status == "FINISHED"
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
            assert sorted(steps) == list(range(1, EPOCHS + 1)), task
            [version] = registry.versions(task)
            assert (version.digest, version.source) == (publication.digest, publication.uri)
            assert version.aliases == ("champion",)
        assert list((self._plant.home / "spool").glob("*.jsonl")) == []

    def causes(self, kind: str) -> list[str]:
        """Causes for which tasks were ``failed`` or ``retried``."""
        return [str(event.data["cause"]) for event in self.events if event.kind == kind]


def place_of(worker: str) -> tuple[str, int]:
    """Host and process id in a worker's name."""
    host, _, pid = worker.partition("@")[2].rpartition(":")
    return host, int(pid.partition("-")[0])
