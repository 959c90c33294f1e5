"""Content of reports, for people and for scripts."""

import io
from pathlib import Path

from rich.console import Console

from orchestrator.cli.tables import memory_line, print_report, report_json, version_json
from orchestrator.manifest.model import RefusedTask
from orchestrator.registry.recorder import Backlog
from orchestrator.registry.versions import VersionInfo
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


def make_version(**metrics: float) -> VersionInfo:
    return VersionInfo(
        version=1, digest="0" * 64, source="", metrics=metrics, aliases=(), created_s=0.0, run_id=None
    )


def test_a_version_shows_its_bytes_on_the_device_by_part() -> None:
    info = make_version(accuracy=0.9, head_bytes=396, low_rank_bytes=8192, prompts_bytes=0)
    assert memory_line(info) == "8.6 KB on the device: head 396 bytes, low rank 8.2 KB"
    assert version_json(info)["bytes"] == {"head": 396, "low_rank": 8192, "prompts": 0}


def test_a_version_from_before_shows_none() -> None:
    assert memory_line(make_version(accuracy=0.9)) == ""
    assert version_json(make_version(accuracy=0.9))["bytes"] is None
