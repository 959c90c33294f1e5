"""Hooks of a task runner that note what they are told."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from safetensors.torch import load, save

from orchestrator.train.worker.progress import Progress

__all__ = ["KEY", "NUM_EPOCHS", "Hooks", "with_note"]


NUM_EPOCHS = 12


KEY = f"{1:064x}"


class Hooks:
    """Notes the epochs; does something at one of them, or when it is asked about the lease."""

    def __init__(
        self, at_epoch: Mapping[int, Exception] | None = None, on_check: Callable[[], None] = lambda: None
    ) -> None:
        self.at_epoch = at_epoch or {}
        self.on_check = on_check
        self.reports: list[Mapping[str, Any]] = []
        self.steps: list[Mapping[str, Any]] = []
        self.num_started = 0
        self.progress = Progress()
        self.enter, self.doing = self.progress.enter, self.progress.doing

    def epoch(self, report: Mapping[str, Any]) -> None:
        self.reports.append(report)
        if report["epoch"] in self.at_epoch:
            raise self.at_epoch[report["epoch"]]

    def search(self, report: Mapping[str, Any]) -> None:
        self.steps.append(report)

    def started(self) -> None:
        self.num_started += 1

    def check(self) -> None:
        self.on_check()

    @property
    def epochs(self) -> list[int]:
        return [report["epoch"] for report in self.reports]


def with_note(snapshot: bytes, note: str | None) -> bytes:
    """The snapshot with this note; with None as versions before the notes wrote it."""
    size = int.from_bytes(snapshot[:8], "little")
    header = json.loads(snapshot[8 : 8 + size])["__metadata__"]["ship"]
    return save(load(snapshot), metadata={"ship": header} if note is None else {"ship": header, "note": note})
