"""Content of reports, for people and for scripts."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli.tables import (
    advice_line,
    memory_line,
    print_report,
    tasks_table,
    versions_table,
)
from orchestrator.manifest.model import RefusedTask
from orchestrator.registry.advice import Advice
from orchestrator.registry.fleet import in_order, task_json
from orchestrator.registry.plain_values import version_json
from orchestrator.registry.record_writer import Redecision
from orchestrator.registry.recorder import Backlog
from orchestrator.registry.versions import VERDICT_TAG, TaskInfo, VersionInfo
from orchestrator.train.executor import RunSummary
from orchestrator.train.job_report import JobReport
from orchestrator.train.ledger.status import TaskStatus
from orchestrator.train.verdicts import Verdict


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
    assert report.to_dict() == {
        "tuned": ["caps"],
        "reused": ["bolts"],
        "failed": {"welds": "no such folder: [welds]"},
        "cancelled": [],
        "refused": {"gears": ["over its budget"]},
        "unfinished": [],
        "records_waiting": 0,
        "warnings": {"caps": ["measured on 12 held-out images: too few for a claim"]},
        "tasks": [],
        "num_serving": 0,
        "summary": "0 of 0 serve",
        "report": None,
        "decided": [],
    }


def test_the_same_failure_of_many_tasks_is_one_with_their_number() -> None:
    failed = tuple(
        TaskStatus(task=f"line-{number}", key=f"{number}" * 64, state="failed", cause="the store is full")
        for number in range(5)
    )
    report = JobReport(
        reused=(),
        summary=RunSummary(tasks=failed),
        backlog=Backlog(num_records=0, folder=Path("spool")),
        warnings={f"caps-{number}": ("too few images",) for number in range(4)},
    )
    printed = io.StringIO()
    print_report(Console(file=printed, width=200), report, num_tasks=5)
    assert printed.getvalue().splitlines()[1:] == [
        "caps-0, caps-1, caps-2, ... (4 times): too few images",
        "line-0, line-1, line-2, ... (5 times): the store is full",
    ]
    assert len(report.to_dict()["failed"]) == 5


MEASURED = {"accuracy": 0.658, "accuracy_low": 0.6012, "accuracy_high": 0.712, "probe_accuracy": 0.64}


def make_report(*verdicts: Verdict) -> JobReport:
    tasks = tuple(TaskStatus(task=one.task, key="0" * 64, state="done") for one in verdicts if one.is_new)
    return JobReport(
        reused=tuple(one.task for one in verdicts if not one.is_new),
        summary=RunSummary(tasks=tasks),
        backlog=Backlog(num_records=0, folder=Path("spool")),
        verdicts=verdicts,
    )


SERVES = {"kind": "serves", "serves": True, "version": 1, "champion": 1}
BEHIND = {**SERVES, "version": 4, "champion": 3}
WAITS = {"kind": "withheld", "serves": False, "version": 1}
NEEDS_DATA = {
    **WAITS,
    "kind": "needs-data",
    "reason": "It guesses.",
    "advice": "add about 40 held-out images",
    "num_images": 40,
    "split": "held-out",
}
VERDICTS = (
    Verdict(task="a", metrics=MEASURED, is_new=True, **SERVES),
    Verdict(task="b", metrics=MEASURED, is_new=True, **WAITS, reason="Below [it]."),
    Verdict(task="c", metrics=MEASURED, is_new=True, **BEHIND, reason="Worse."),
    Verdict(task="d", metrics={}, is_new=True),
    Verdict(task="e", metrics={}, is_new=False, **SERVES),
    Verdict(task="p", metrics={}, is_new=True, **SERVES, advice="it is the probe"),
    Verdict(task="n", metrics={}, is_new=True, **BEHIND, reason="It guesses.", advice="add 9 images"),
    Verdict(task="f", metrics={}, is_new=False, **WAITS, reason="Below."),
    Verdict(task="g", metrics={}, is_new=True, **NEEDS_DATA),
    Verdict(task="h", metrics={}, is_new=True, kind="failed", reason="no such folder"),
)


def test_a_report_says_of_each_task_whether_it_serves() -> None:
    printed = io.StringIO()
    print_report(Console(file=printed, width=62), make_report(*VERDICTS), num_tasks=6)
    assert printed.getvalue().splitlines()[1:] == [
        "a: held out 0.658 (0.601-0.712), probe 0.640; version 1 serves",
        "b: held out 0.658 (0.601-0.712), probe 0.640; version 1 waits, and nothing serves: Below [it].",
        "c: held out 0.658 (0.601-0.712), probe 0.640; version 4 waits, and version 3 serves on: Worse.",
        "d: whether it serves is not known yet",
        "p: version 1 serves; it is the probe",
        "n: version 4 waits, and version 3 serves on: It guesses. What it needs: add 9 images.",
        "f: version 1 waits, and nothing serves: Below.",
        "g: version 1 waits, and nothing serves: It guesses. Needs data: add about 40 held-out images.",
        "5 of 10 serve; 1 needs data; 2 withheld; 1 failed; not known yet for 1, whose records MLflow has "
        "not taken: see `ship ls`",
    ]


def test_a_report_tells_what_is_in_the_store_from_what_serves() -> None:
    earlier = Verdict(task="a", metrics={}, is_new=False, **{**BEHIND, "version": 1}, reason="It was better.")
    refused = Verdict(task="b", metrics={}, is_new=False, **BEHIND, reason="Worse.", gate="champion")
    again = Verdict(task="c", metrics={}, is_new=False, **BEHIND, reason="Worse.", gate="champion")
    decided = (
        Redecision(task="c", version=4, promoted=False, reason="Worse."),
        Redecision(task="d", version=2, promoted=True, reason="No worse."),
    )
    printed = io.StringIO()
    report = replace(make_report(earlier, refused, again), decided=decided)
    print_report(Console(file=printed, width=62), report, num_tasks=4)
    assert printed.getvalue().splitlines() == [
        "Nothing to tune: all 4 tasks are in the store already.",
        "a: in the store as version 1; version 3 serves: `ship tune --promote` asks the gate again, `ship "
        "promote a 1` does not",
        "b: version 4 waits, and version 3 serves on: Worse.",
        "c: version 4 does not serve, by the gate: Worse.",
        "d: version 2 serves from now on, by the gate: No worse.",
        "3 of 3 serve",
    ]
    assert report.to_dict()["decided"][1] == {
        "task": "d",
        "version": 2,
        "promoted": True,
        "reason": "No worse.",
    }


def test_a_report_as_plain_values_has_each_verdict() -> None:
    said = make_report(*VERDICTS).to_dict()
    assert said["num_serving"] == 5
    serving = {task["task"] for task in said["tasks"] if task["serves"]}
    assert serving == set("acenp")
    assert said["tasks"][1] == {
        "task": "b",
        **MEASURED,
        "is_new": True,
        "kind": "withheld",
        "serves": False,
        "version": 1,
        "champion": None,
        "reason": "Below [it].",
        **dict.fromkeys(("gate", "advice", "num_images", "split", "of_class", "digest")),
    }
    assert said["tasks"][8]["num_images"] == 40


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (["serves"] * 5 + ["needs-data"] * 3, "5 of 8 serve; 3 need data"),
        (["needs-backbone"], "0 of 1 serve; 1 needs another backbone or resolution"),
        (
            ["needs-backbone"] * 2 + ["failed"] * 2,
            "0 of 4 serve; 2 need another backbone or resolution; 2 failed",
        ),
        (["serves"], "1 of 1 serve"),
    ],
)
def test_the_last_line_counts_the_verdicts(kinds: list[str], said: str) -> None:
    verdicts = [Verdict(task=f"t{i}", metrics={}, is_new=False, kind=kind) for i, kind in enumerate(kinds)]
    printed = io.StringIO()
    print_report(Console(file=printed, width=80), make_report(*verdicts), num_tasks=1)
    assert printed.getvalue().splitlines()[-1] == said


def make_version(**metrics: float) -> VersionInfo:
    return VersionInfo(
        version=1, digest="0" * 64, source="", metrics=metrics, aliases=(), created_s=0.0, run_id=None
    )


def test_a_version_shows_its_bytes_on_the_device_by_part() -> None:
    info = make_version(accuracy=0.9, head_bytes=396, low_rank_bytes=8192, prompts_bytes=0)
    assert memory_line(info) == "8.6 KB on the device: head 396 bytes, low rank 8.2 KB"
    assert version_json(info)["bytes"] == {"head": 396, "low_rank": 8192, "prompts": 0}


def test_a_version_shows_what_it_needs_until_it_serves() -> None:
    advice = Advice(kind="needs-data", gate="guessing", text="add about 40 held-out images", num_images=40)
    waits = replace(make_version(accuracy=0.5), tags={VERDICT_TAG: advice.to_json()})
    assert advice_line(waits) == "needs data: add about 40 held-out images"
    assert version_json(waits)["verdict"]["num_images"] == 40
    promoted = replace(waits, aliases=("champion",))
    assert (advice_line(promoted), version_json(promoted)["verdict"]) == ("", {"kind": "serves"})
    assert version_json(make_version())["verdict"] is None
    worse = replace(waits, tags={VERDICT_TAG: Advice(kind="withheld", gate="champion").to_json()})
    assert advice_line(worse) == "withheld (gate: champion)"
    was_champion = replace(waits, tags={VERDICT_TAG: Advice(kind="serves").to_json()})
    assert (advice_line(was_champion), version_json(was_champion)["verdict"]) == ("", None)


def test_a_version_from_before_shows_none() -> None:
    assert memory_line(make_version(accuracy=0.9)) == ""
    assert version_json(make_version(accuracy=0.9))["bytes"] is None


def test_no_versions_are_an_empty_table() -> None:
    assert versions_table([], 80).row_count == 0


def make_task(name: str) -> TaskInfo:
    champion = make_version(accuracy=0.9, probe_accuracy=0.8)
    return TaskInfo(
        task=name, champion=champion, challenger=None, previous=None, latest=1, updated_s=0.0, aliases={}
    )


def test_a_task_without_a_champion_shows_its_challengers_accuracy_and_says_so() -> None:
    challenger = replace(make_version(accuracy=0.8167), version=2)
    task = replace(make_task("caps"), champion=None, challenger=challenger)
    printed = io.StringIO()
    Console(file=printed, width=200).print(tasks_table([task, make_task("bolts")], 200))
    _, _, waiting, serving = printed.getvalue().splitlines()
    assert "0.8167 (challenger)" in waiting
    assert "challenger)" not in serving


def test_tags_retirement_and_the_time_since_when_it_serves_are_shown() -> None:
    tags = {"ship.task": "caps", "ship.champion_since": "1@3600.0", "site": "ulm", "mlflow.user": "x"}
    task = replace(make_task("caps"), tags=tags)
    retired = replace(make_task("welds"), champion=None, aliases={"retired": 1}, tags=tags)
    printed = io.StringIO()
    Console(file=printed, width=200).print(tasks_table([task, retired], 200))
    _, _, serving, gone = printed.getvalue().splitlines()
    assert "1970-01-01T01:00:00Z" in serving
    assert "site=ulm" in serving
    assert "mlflow" not in serving
    assert "retired" in gone
    assert "1970" not in gone
    said = task_json(task)
    assert (said["tags"], said["serves_since"], said["retired"]) == (
        {"site": "ulm"},
        "1970-01-01T01:00:00Z",
        False,
    )
    assert (task_json(retired)["retired"], task_json(retired)["serves_since"]) == (True, None)
    broken = replace(make_task("welds"), broken={"staging": 9})
    assert "MLflow has @staging at version 9, which is gone" in str(broken.problem)
    assert task.problem is None


@pytest.mark.parametrize("mark", ["2@3600.0", "1@", "1@soon", "1@nan", "", "@", "1"])
def test_a_mark_of_another_champion_or_none_tells_no_time(mark: str) -> None:
    assert replace(make_task("caps"), tags={"ship.champion_since": mark}).serves_since_s is None


def test_tasks_are_sorted_by_name_accuracy_or_change() -> None:
    worst = replace(make_task("b"), champion=None, challenger=make_version(accuracy=0.5), updated_s=2.0)
    best = replace(make_task("c"), champion=make_version(accuracy=0.99), updated_s=1.0)
    unknown, middle = replace(make_task("a"), champion=None, updated_s=3.0), make_task("d")
    tasks = [middle, best, worst, unknown]

    def names(by: str, reverse: bool) -> str:
        return "".join(info.task for info in in_order(tasks, by, reverse=reverse))

    assert (names("task", False), names("task", True)) == ("abcd", "dcba")
    assert (names("accuracy", False), names("accuracy", True)) == ("bdca", "cdba")
    assert (names("changed", False), names("changed", True)) == ("abcd", "dcba")


@pytest.mark.parametrize("width", [62, 80, 100, 200])
def test_lists_keep_whole_names(width: int) -> None:
    names = ["plant-ulm.line-3.weld-seam-front-left", "caps"]
    printed = io.StringIO()
    Console(file=printed, width=width).print(tasks_table([make_task(name) for name in names], width))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 4, "a line a task"
    for name, line in zip(names, lines[2:], strict=True):
        assert line.split()[0] == name
        assert "0.9000" in line
    assert ("serves since" in lines[0]) == (width == 200)


@pytest.mark.parametrize("width", [62, 80, 200])
def test_versions_fit_a_line(width: int) -> None:
    printed = io.StringIO()
    info = replace(make_version(accuracy=0.9, probe_accuracy=0.8), aliases=("canary", "challenger"))
    Console(file=printed, width=width).print(versions_table([info], width))
    [head, _, line] = printed.getvalue().splitlines()
    assert max(len(head), len(line)) <= width
    for text in ("v1", "canary, challenger", "0.9000", "0.8000"):
        assert text in line
