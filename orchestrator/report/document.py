"""The document of a report, ``report.json``: a run's summary, a row for each task, sections in detail."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.report.page import render
from orchestrator.report.section import Section

__all__ = ["make_document", "write_report"]

SCHEMA = 1
MAX_THUMBNAILS_BYTES = 8_000_000
""" """
