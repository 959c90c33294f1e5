"""The document of a report, ``report.json``: the run, a row for each task, and the sections in detail.

The page is made of it and of thumbnails alone. Both are bounded for runs of hundreds of tasks: sections and
thumbnails beyond a limit are left out, and the document says how many.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.private_files import replace_private
from orchestrator.report.kinds import KINDS, tally
from orchestrator.report.page import render
from orchestrator.report.section import Section
from ship.redaction import redact_values

__all__ = ["MAX_SECTIONS", "MAX_THUMBNAILS_BYTES", "Report", "make_report"]

SCHEMA = 1
MAX_SECTIONS = 300
MAX_THUMBNAILS_BYTES = 8_000_000
_ROW = ("accuracy", "accuracy_low", "accuracy_high", "probe_accuracy")


class Report:
    """A report as a document and as a page.

    Args:
        document: JSON values.
        thumbnails: JPEG by the digest of a picture.
    """

    def __init__(self, document: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> None:
        self.document: Any = redact_values(document)
        self._thumbnails = thumbnails

    def to_json(self) -> bytes:
        """The content of ``report.json``; half characters of file names are escapes there."""
        return (json.dumps(self.document, indent=1, allow_nan=False) + "\n").encode()

    def to_html(self) -> bytes:
        """The page."""
        return render(self.document, self._thumbnails).encode()

    def write(self, folder: Path) -> Path:
        """Write ``report.json`` and ``report.html``, each whole or not at all; returns the page's path.

        Raises:
            OSError: A file cannot be written.
        """
        page = folder / "report.html"
        for path, content in ((folder / "report.json", self.to_json()), (page, self.to_html())):
            replace_private(path, content)
        return page


def make_report(
    run: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, Any]],
    sections: Mapping[str, Section],
    warnings: Sequence[str] = (),
    *,
    max_thumbnails_bytes: int = MAX_THUMBNAILS_BYTES,
) -> Report:
    """A report on some tasks.

    Args:
        run: Name of the run, manifest, backbone and times, as far as there are any.
        verdicts: The verdict on each task, with its name as ``task`` and its accuracy.
        sections: Section by task, of those that are told in detail.
        warnings: Warnings about the run as a whole.
        max_thumbnails_bytes: Size of all thumbnails together.
    """
    order = list(KINDS)
    ranked = sorted(verdicts, key=lambda one: (order.index(one["kind"]), one["task"]))
    rows = [_row(verdict, sections.get(verdict["task"])) for verdict in ranked]
    thumbnails, num_left_out = _choose(
        [sections[row["task"]] for row in rows if row["task"] in sections], max_thumbnails_bytes
    )
    document = {
        "schema": SCHEMA,
        "run": dict(run),
        "summary": tally([verdict["kind"] for verdict in verdicts]),
        "warnings": list(warnings),
        "tasks": rows,
        "num_thumbnails_left_out": num_left_out,
    }
    return Report(document, thumbnails)


def _row(verdict: Mapping[str, Any], section: Section | None) -> dict[str, Any]:
    if section is not None:
        return {"has_details": True, **section.values}
    own = {name: value for name, value in verdict.items() if name not in ("task", *_ROW)}
    return {
        "has_details": False,
        "task": verdict["task"],
        "verdict": own,
        **{name: verdict.get(name) for name in _ROW},
        "worst_class": None,
        "cost": None,
    }


def _choose(sections: Sequence[Section], max_bytes: int) -> tuple[dict[str, bytes], int]:
    """Thumbnails that there is room for, a fair share of each task; and how many are left out."""
    chosen: dict[str, bytes] = {}
    num_left_out, room = 0, max_bytes
    for number, section in enumerate(sections):
        share = room // (len(sections) - number)
        for digest, jpeg in section.thumbnails.items():
            if digest in chosen:
                continue
            if len(jpeg) > share:
                num_left_out += 1
                continue
            chosen[digest] = jpeg
            share -= len(jpeg)
            room -= len(jpeg)
    return chosen, num_left_out
