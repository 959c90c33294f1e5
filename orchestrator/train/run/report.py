"""Files that a run leaves in its folder: ``run.json``, ``report.json`` and ``report.html``.

None of them decides anything: what cannot be gathered or written is logged and left out.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.errors import StoreError
from orchestrator.private_files import replace_private
from orchestrator.report.document import MAX_SECTIONS, make_report
from orchestrator.report.gathering import gather_section
from orchestrator.report.kinds import KINDS
from orchestrator.report.section import Section
from orchestrator.store.prompt_store import PromptStore
from orchestrator.train.job_report import JobReport, verdict_values
from orchestrator.train.verdicts import Verdict
from ship.redaction import redact_values

__all__ = ["leave_report"]

_logger = logging.getLogger(__name__)


def leave_report(
    folder: Path,
    run: Mapping[str, Any],
    report: JobReport,
    store: PromptStore,
    warnings: Sequence[str] = (),
) -> JobReport:
    """Write a run's files; returns the report with the page's path.

    An interrupted run has ``run.json`` alone: gathering takes time, and its user has asked for the end.

    Args:
        folder: Folder of the run.
        run: Name of the run, manifest and backbone.
        report: Result of the job.
        store: Store of artifacts.
        warnings: Warnings of the plan.
    """
    if report.verdicts and not report.summary.is_interrupted:
        rows = [verdict_values(verdict) for verdict in report.verdicts]
        try:
            made = make_report(run, rows, _gather(store, report.verdicts), warnings)
            report = replace(report, page=made.write(folder))
        # A boundary: the run is over, and its result must reach the user whatever a record looks like.
        except Exception as error:
            _logger.warning("%s: there is no report of this run: %r", folder, error)
    content = json.dumps(redact_values({"run": dict(run), **report.to_dict()}), indent=1)
    try:
        replace_private(folder / "run.json", content.encode())
    except OSError as error:
        _logger.warning("%s: run.json cannot be written: %s", folder, error)
    return report


def _gather(store: PromptStore, verdicts: Sequence[Verdict]) -> dict[str, Section]:
    """Sections of what the run tuned and of what does not serve; the worst first, as many as are kept."""
    order = list(KINDS)
    told = [one for one in verdicts if one.digest is not None and (one.is_new or one.kind != "serves")]
    sections = {}
    for one in sorted(told, key=lambda one: order.index(one.kind))[:MAX_SECTIONS]:
        assert one.digest is not None, "chosen by it"
        try:
            sections[one.task] = gather_section(store, one.task, one.digest, verdict_values(one))
        except StoreError as error:
            _logger.warning("the report has no section on task %s: %s", one.task, error)
    return sections
