"""Writes the events of one task into MLflow: its run, then its version, then the gate's decision.

Writing the same events again changes nothing: the run is found by its key, epochs and parameters that it has
are left out, a digest is registered once, and a version goes through the gate once, so that an alias which a
person has moved since then stays where it is.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.errors import RegistryError, StoreError
from orchestrator.events import Event
from orchestrator.manifest.floors import Floors
from orchestrator.registry.advice import Advice
from orchestrator.registry.advising import TuningFacts, advise
from orchestrator.registry.best_before import find_best_before
from orchestrator.registry.figures import draw_figures
from orchestrator.registry.gate import GateDecision, decide
from orchestrator.registry.inheritance import inherit_rule
from orchestrator.registry.measurement import Measurement
from orchestrator.registry.ownership import check_owner
from orchestrator.registry.record_values import (
    backbone_tags,
    curve_points,
    data_set,
    data_tags,
    final_points,
    floors_of,
    lineage_of,
    manifest_tags,
    tags_of,
)
from orchestrator.registry.registry import Registry, RegistryDown
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.runs import Point, RunLog, TaskRun
from orchestrator.registry.versions import (
    CHOICE_TAG,
    GATE_REASON_TAG,
    GATE_TAG,
    PUBLISHED_TAG,
    REFUSED_TAG,
    TASK_KEY_TAG,
    VERDICT_TAG,
    VersionInfo,
)
from orchestrator.report.document import make_report
from orchestrator.report.gathering import gather_section
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import CARD, RECORD
from ship.errors import ConfigError

__all__ = ["RecordWriter", "Redecision"]

_logger = logging.getLogger(__name__)
# Folder of the artifact's files in a run.
FOLDER = "prompt"
_MAX_CHOICE = 2000
_STATUS = {"failed": "FAILED", "cancelled": "KILLED"}


@dataclass(frozen=True, kw_only=True)
class _Artifact:
    """The parts of an artifact that are recorded in MLflow."""

    digest: str
    files: Mapping[str, bytes]
    card: Mapping[str, Any]
    record: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Redecision:
    """The gate's decision on a version that it decided on before.

    Attributes:
        task: Name of the task.
        version: The version.
        promoted: Whether it serves from now on.
        reason: Reason of the decision.
    """

    task: str
    version: int
    promoted: bool
    reason: str


class RecordWriter:
    """Writes events of one task at a time.

    Args:
        registry: Registry of versions; runs go to the same MLflow.
        store: Store of artifacts.
    """

    def __init__(self, registry: Registry, store: PromptStore) -> None:
        self._registry = registry
        self._runs = RunLog(registry.session)
        self._rollouts = Rollouts(registry, store)
        self._store = store
        self._is_owner = False
        self._open_runs: dict[tuple[str, str], TaskRun] = {}

    def write(self, task: str, key: str, events: Sequence[Event]) -> None:
        """Write events of one task key, in their order.

        Raises:
            RegistryDown: MLflow cannot be reached; write them again later, all of them.
            ForeignRegistryError: The store belongs to another registry; nothing was written.
            RegistryError: MLflow refuses them.
            StoreError: The artifact cannot be read.
        """
        if all(event.attempt == 0 for event in events):
            # Cancelled before any worker took it: there is nothing to make a run of.
            return
        told = [event for event in events if event.kind != "tagged"]
        if not self._is_owner:
            # Its experiment is what a registry is told by: made now, if this is the first record of all.
            _ = self._registry.session.experiment_id
            check_owner(self._store, self._registry)
            self._is_owner = True
        if told:
            try:
                self._try(task, key, told)
            except RegistryDown:
                raise
            except RegistryError:
                # The run may have been the copy of another recorder that was deleted: once more, as it is
                # now.
                self._try(task, key, told)
        tagged = [event for event in events if event.kind in ("published", "tagged")]
        if tagged and "tagged_s" in (data := tagged[-1].data):
            self._registry.tag_task(task, manifest_tags(tagged[-1]), float(data["tagged_s"]))

    def _try(self, task: str, key: str, events: Sequence[Event]) -> None:
        try:
            self._record_task(task, key, events)
        except BaseException:
            # How much of it got through is not known: read the run again before the next try.
            self._open_runs.pop((task, key), None)
            raise

    def _record_task(self, task: str, key: str, events: Sequence[Event]) -> None:
        published = next((event for event in events if event.kind == "published"), None)
        artifact = self._read(str(published.data["digest"])) if published else None
        run = self._open(task, key, events, artifact)
        if run.status != "FINISHED":
            self._log(task, run, events, artifact)
        if published is not None and artifact is not None:
            self._finish(task, key, run, published, artifact)
            del self._open_runs[task, key]
        elif run.status != "FINISHED":
            self._set_status(run, events[-1])

    def _read(self, digest: str) -> _Artifact:
        files = self._store.fetch(digest)
        try:
            card, record = json.loads(files[CARD]), json.loads(files[RECORD])
        except (KeyError, ValueError) as error:
            raise StoreError(f"{self._store.uri(digest)}: cannot be recorded: {error!r}") from error
        return _Artifact(digest=digest, files=files, card=card, record=record)

    def _open(self, task: str, key: str, events: Sequence[Event], artifact: _Artifact | None) -> TaskRun:
        if (task, key) not in self._open_runs:
            started_s = events[0].time_s
            if artifact is not None and artifact.record["history"]:
                started_s = min(started_s, artifact.record["history"][0]["time_s"])
            lineage = next((lineage_of(event) for event in events if event.kind == "leased"), {})
            self._open_runs[task, key] = self._runs.open(task, key, started_s, lineage)
        return self._open_runs[task, key]

    def _log(self, task: str, run: TaskRun, events: Sequence[Event], artifact: _Artifact | None) -> None:
        epochs = [{**event.data, "time_s": event.time_s} for event in events if event.kind == "epoch"]
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for event in events:
            params |= {name: str(value) for name, value in event.data.get("params", {}).items()}
            tags |= tags_of(event)
        points: list[Point] = []
        if artifact is not None:
            # Events may have been missed while it was tuned: the artifact has all epochs.
            instead_of = artifact.record.get("instead_of") or artifact.record
            epochs += instead_of["history"]
            # Of an import, which was not tuned here, settings of tuning would say nothing.
            if "source" not in artifact.record:
                params = {name: str(value) for name, value in artifact.card["config"].items()} | params
            points = final_points(artifact.card["metrics"], artifact.record["time_s"])
            tags |= backbone_tags(artifact.card)
        self._runs.log(run, curve_points(epochs, run.steps) + points, params, tags)
        if (data := data_set(events, None if artifact is None else artifact.card)) is not None:
            self._runs.log_data(run, task, data)

    def _set_status(self, run: TaskRun, last: Event) -> None:
        status = _STATUS.get(last.kind, "RUNNING")
        if run.status != status:
            self._runs.set_status(run, status, last.time_s)

    def _finish(self, task: str, key: str, run: TaskRun, event: Event, artifact: _Artifact) -> None:
        if run.status != "FINISHED":
            files = {f"{FOLDER}/{name}": content for name, content in artifact.files.items()}
            self._runs.log_files(run, files | _figures(task, artifact.record))
        version = self._register(task, key, run, event, artifact)
        if run.status != "FINISHED":
            self._runs.log_files(run, self._report(task, artifact.digest, version))
        # Last of all: a run that is finished has nothing left to be written.
        if run.status != "FINISHED":
            self._runs.set_status(run, "FINISHED", event.time_s)

    def _report(self, task: str, digest: str, version: VersionInfo) -> dict[str, bytes]:
        """The report about one version; without any, if none can be made."""
        advice = version.advice or Advice(kind="withheld")
        serves = version.version if advice.kind == "serves" else None
        verdict = {
            **{name: value for name, value in asdict(advice).items() if name != "text"},
            "task": task,
            "version": version.version,
            "champion": serves,
            "reason": version.gate_reason,
            "advice": advice.text or None,
        }
        try:
            section = gather_section(self._store, task, digest, verdict)
            run = {"name": task, "version": version.version, "digest": digest}
            report = make_report(run, [verdict], {task: section})
            return {"report.html": report.to_html(), "report.json": report.to_json()}
        # A boundary: a report that cannot be made of odd records must not hold up what is recorded.
        except Exception as error:
            _logger.warning("no report for task %s: %r", task, error)
            return {}

    def _register(self, task: str, key: str, run: TaskRun, event: Event, artifact: _Artifact) -> VersionInfo:
        """Register the version, and let it pass the gate, once; returns it with the gate's tags."""
        card = artifact.card
        publication = self._store.published(task, key)
        found = self._registry.register(
            task,
            digest=artifact.digest,
            source=self._source(run, artifact.digest),
            run_id=run.run_id,
            metrics=card["metrics"],
            tags={
                **manifest_tags(event),
                "ship.uri": self._store.uri(artifact.digest),
                TASK_KEY_TAG: card["task_key"],
                **backbone_tags(card),
                **data_tags(card, artifact.record),
                CHOICE_TAG: str(artifact.record.get("choice", ""))[:_MAX_CHOICE],
                PUBLISHED_TAG: repr(event.time_s if publication is None else publication.time_s),
            },
        )
        if GATE_TAG in found.tags:
            return found
        return self._decide(task, found, artifact, floors_of(event))[0]

    def decide_again(self, task: str, key: str, floors: Floors) -> Redecision:
        """Let a version pass the gate as it stands today: one that is in the store while another one serves.

        Args:
            task: Name of the task.
            key: Its task key.
            floors: The least that the version has to reach.

        Raises:
            RegistryDown: MLflow cannot be reached; nothing was changed.
            RegistryError: It is no version.
            StoreError: Its artifact cannot be read.
        """
        publication = self._store.published(task, key)
        infos = [] if publication is None else self._registry.versions(task)
        found = next(
            (info for info in reversed(infos) if publication and info.digest == publication.digest), None
        )
        if publication is None or found is None:
            raise RegistryError(f"task {task!r}: what is in the store is no version of it yet; see `ship ls`")
        info, decision = self._decide(task, found, self._read(publication.digest), floors, again=True)
        return Redecision(task=task, version=info.version, promoted=decision.promote, reason=decision.reason)

    def _decide(
        self, task: str, found: VersionInfo, artifact: _Artifact, floors: Floors, *, again: bool = False
    ) -> tuple[VersionInfo, GateDecision]:
        """Let a version pass the gate; returns it with the gate's tags, and the decision."""

        def judge(champion: VersionInfo | None, rule: str | None) -> GateDecision:
            judged = self._judge(task, artifact, floors, champion)
            if judged.lost:
                return replace(judged, reason=f"{judged.reason} {_without_classes(task, found)}")
            return judged if rule is None or not judged.promote else self._inherit(judged, task, found, rule)

        decision = self._rollouts.admit(task, found, judge, again=again)
        _logger.info("%s version %d is @%s: %s", task, found.version, decision.alias, decision.reason)
        candidate = Measurement.read(artifact.card, artifact.record)
        facts = TuningFacts.read(artifact.card, artifact.record)
        advice = advise(decision, candidate, facts, floors)
        # The tag that says "done" comes last.
        tags = {
            GATE_REASON_TAG: decision.reason,
            REFUSED_TAG: str(decision.is_refusal).lower(),
            VERDICT_TAG: advice.to_json(),
            GATE_TAG: decision.alias,
        }
        self._registry.tag_version(task, found.version, tags)
        return replace(found, tags={**found.tags, **tags}), decision

    def _judge(
        self, task: str, artifact: _Artifact, floors: Floors, champion: VersionInfo | None
    ) -> GateDecision:
        candidate = Measurement.read(artifact.card, artifact.record)
        if champion is None:
            return decide(candidate, None, floors=floors)
        best = find_best_before(self._registry.versions(task), champion, candidate.data, candidate.held_out)
        return decide(
            candidate, self._measure(champion), None if best is None else self._measure(best), floors=floors
        )

    def _inherit(self, decision: GateDecision, task: str, found: VersionInfo, rule: str) -> GateDecision:
        """The decision on a version that keeps to the rule that was set for the champion, if it can."""
        assert found.digest is not None, "its artifact was read"
        try:
            author = self._rollouts.writer.author
            inherited = inherit_rule(self._store, task, found.digest, rule, author, time.time())
        # What cannot be read is as good as what cannot be kept to: a promise is not dropped for it.
        except (ConfigError, StoreError) as error:
            reason = (
                f"{decision.reason} It cannot keep to the rule that was set for the champion: {error}. `ship "
                f"threshold {task} --version {found.version}` sets another one for it, `ship promote {task} "
                f"{found.version}` serves it."
            )
            return replace(decision, promote=False, reason=reason, gate="promise")
        kept = f"{decision.reason} It keeps to the rule that was set for the champion."
        return replace(decision, reason=kept, rule=inherited)

    def _measure(self, info: VersionInfo) -> Measurement:
        """The measurement of a version, image by image where its artifact can be read."""
        if info.digest is not None:
            try:
                artifact = self._read(info.digest)
                return Measurement.read(artifact.card, artifact.record)
            except StoreError as error:
                _logger.warning("the gate compares with version %d by its metrics: %s", info.version, error)
        card = {"metrics": info.metrics, "data_fingerprint": info.data_fingerprint}
        return Measurement.read(card, {"held_out": {"fingerprint": info.held_out_fingerprint}})

    def _source(self, run: TaskRun, digest: str) -> str:
        """The artifact's URI; or, as a server takes no local path of its client's, the copy in its run."""
        uri = self._store.uri(digest)
        if self._registry.session.is_server and uri.startswith("file:"):
            return f"runs:/{run.run_id}/{FOLDER}"
        return uri


def _without_classes(task: str, found: VersionInfo) -> str:
    """What to do with a version that lost classes."""
    return (
        f"Put the images back; if it is to do without, `ship promote {task} {found.version} --force --reason "
        "TEXT` serves it."
    )


def _figures(task: str, record: Mapping[str, Any]) -> dict[str, bytes]:
    try:
        return draw_figures(record)
    except (KeyError, ValueError, TypeError) as error:
        _logger.warning("no figures for task %s: its record.json cannot be drawn: %r", task, error)
        return {}
