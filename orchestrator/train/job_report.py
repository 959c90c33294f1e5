"""Result of a job: what was tuned, reused, refused or failed, and the verdict on each task."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.manifest.model import RefusedTask
from orchestrator.registry.record_writer import Redecision
from orchestrator.registry.recorder import Backlog
from orchestrator.report.kinds import tally
from orchestrator.train.executor import RunSummary
from orchestrator.train.verdicts import Verdict

__all__ = ["JobReport", "verdict_values"]


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """Result of a job.

    Attributes:
        reused: Tasks that were published before.
        summary: Result of the tunings.
        backlog: Records that MLflow has not taken yet.
        warnings: Warnings about tuned prompts, by task.
        refused: Tasks that were not tuned, with the reasons.
        verdicts: Verdict on each published or failed task; of an interrupted run only on those that it tuned.
        page: Path of the HTML report; None if there is none.
        decided: Decisions of the gate on what was in the store while another version of its task served.
    """

    reused: tuple[str, ...]
    summary: RunSummary
    backlog: Backlog
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: tuple[RefusedTask, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    page: Path | None = None
    decided: tuple[Redecision, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "tuned": list(self.summary.done),
            "reused": list(self.reused),
            "failed": self.summary.failed,
            "cancelled": list(self.summary.cancelled),
            "refused": {task.name: list(task.reasons) for task in self.refused},
            "unfinished": list(self.summary.unfinished),
            "records_waiting": self.backlog.num_records,
            "warnings": {task: list(warnings) for task, warnings in self.warnings.items()},
            "decided": [asdict(one) for one in self.decided],
            "tasks": [verdict_values(verdict) for verdict in self.verdicts],
            "num_serving": sum(verdict.serves is True for verdict in self.verdicts),
            "summary": tally([verdict.kind for verdict in self.verdicts]),
            "report": None if self.page is None else str(self.page),
        }


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values, its metrics among them."""
    values = asdict(verdict)
    return {"task": values.pop("task"), **values.pop("metrics"), **values}
