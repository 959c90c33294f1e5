"""What the driver of a run does with its events: the log, records for MLflow, and notes for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.events import Event
from orchestrator.planning.estimates import TuningRun
from orchestrator.planning.spec import TaskSpec
from orchestrator.registry.recorder import Recorder
from orchestrator.train.run.folder import RunFolder
from orchestrator.train.verdicts import Published
from ship.findings import find_warnings
from ship.redaction import redact_values
from ship.settings.search_config import AXES

__all__ = ["EventHandler"]


class EventHandler:
    """Passes the events of a run on to its log and to MLflow, and collects the report's warnings.

    Attributes:
        warnings: Warnings about prompts, by task.
        runs: Duration of each tuning.
        published: Artifacts of the tasks that were tuned.
    """

    def __init__(
        self,
        folder: RunFolder,
        recorder: Recorder,
        specs: Sequence[TaskSpec],
        lineage: Mapping[str, str],
        read_s: float,
    ) -> None:
        self._folder, self._recorder = folder, recorder
        self._lineage, self._read_s = lineage, read_s
        self._spec_of = {spec.name: spec for spec in specs}
        self._has_begun = False
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.runs: list[TuningRun] = []
        self.published: list[Published] = []

    def handle(self, events: Sequence[Event]) -> None:
        """Pass new events on."""
        self._folder.log(events)
        for event in events:
            if event.kind == "published":
                self._note(event)
        self._has_begun = self._has_begun or bool(events)
        # Before work has begun, workers that start beside the driver need its cores more than records do.
        if self._has_begun:
            told = [event for event in events if event.kind != "search"]
            self._recorder.handle([self._with_origin(event) for event in told])

    def _note(self, event: Event) -> None:
        metrics = event.data.get("metrics", {})
        digest = event.data.get("digest")
        self.published.append(Published(task=event.task, digest=digest, metrics=metrics, is_new=True))
        if found := find_warnings(metrics):
            self.warnings[event.task] = tuple(found)
        if (run := TuningRun.from_metrics(event.key, metrics, event.time_s)) is not None:
            self.runs.append(run)

    def _with_origin(self, event: Event) -> Event:
        """Add tags to an event, and settings, data and lineage to that of a leased task, which may fail."""
        if event.kind not in ("leased", "published"):
            return event
        spec = self._spec_of[event.task]
        origin: dict[str, Any] = {"tags": redact_values(dict(spec.tags))}
        if event.kind == "published":
            origin |= {"tagged_s": self._read_s}
        else:
            origin |= {
                "params": _parameters(spec),
                "lineage": self._lineage,
                "data_set": {
                    "fingerprint": spec.data_fingerprint,
                    "source": str(spec.source.path),
                    "num_images": spec.num_images,
                    "settings": spec.source.to_public_dict(),
                },
            }
        return replace(event, data={**event.data, **origin})


def _parameters(spec: TaskSpec) -> dict[str, str]:
    # Searched settings are known once the task is done; a parameter of an MLflow run cannot be changed.
    searched = [axis for axis in AXES if spec.search is not None and getattr(spec.search, axis)]
    if spec.config.fallback:
        searched += ["kind", "start"]
    settings = {name: str(value) for name, value in spec.config.to_dict().items() if name not in searched}
    # Its text, which shows no password.
    return {**settings, "data": str(spec.source.path)}
