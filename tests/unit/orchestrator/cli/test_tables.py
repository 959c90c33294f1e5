"""Content of reports, for people and for scripts."""

import io
from pathlib import Path

from rich.console import Console

from orchestrator.cli.tables import print_report, report_json
from orchestrator.manifest.model import RefusedTask
from orchestrator.registry.recorder import Backlog
from orchestrator.train.executor import RunSummary
from orchestrator.train.job import JobReport
from orchestrator.train.ledger.status import TaskStatus


def test_a_report_names_what_failed_and_what_to_doubt() -> None:
    tasks = (
        TaskStatus(task="caps", key="0" * 64, state="done"),
        TaskStatus(task="welds", key="1" * 64, state="failed", cause="no such folder: [welds]"),
    )
    report = JobReport(
        reused=("bolts",),
        summary=RunSummary(tasks=tasks),
        backlog=Backlog(num_records=0, folder=Path("spool")),
        warnings={"caps": ("measured on 12 held-out images: too few for a claim",)},
        refused=(RefusedTask(name="gears", reasons=("over its budget",)),),
    )
    printed = io.StringIO()
    print_report(Console(file=printed, width=200), report, num_tasks=2)
    lines = printed.getvalue().splitlines()
    assert lines == [
        "1 tuned, 1 in the store already, 1 failed, 0 unfinished, 1 refused.",
        "caps: measured on 12 held-out images: too few for a claim",
        "welds: no such folder: [welds]",
    ]
    assert report_json(report) == {
        "tuned": ["caps"],
        "reused": ["bolts"],
        "failed": {"welds": "no such folder: [welds]"},
        "cancelled": [],
        "refused": {"gears": ["over its budget"]},
        "unfinished": [],
        "records_waiting": 0,
        "warnings": {"caps": ["measured on 12 held-out images: too few for a claim"]},
    }
