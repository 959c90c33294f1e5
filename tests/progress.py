"""A pytest plugin: how far a run of the tests is and how long is left to wait, in place of a dot a test.

Files that take longest come first, so that none is left to run alone at the end.

``python -m tests`` loads it with ``-p tests.progress``. Time left follows from ``durations.json``, seconds of
each test file on some machine, scaled by the pace of this run; a file that is not listed counts a second.
"""

import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

__all__ = ["DURATIONS", "Pace", "pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]

DURATIONS = Path(__file__).with_name("durations.json")
_UNLISTED_S = 1.0
_QUIET_S = 20.0


class Pace:
    """Work done and time left, from what each test file is expected to take.

    Args:
        num_tests: Tests of each file.
        expected_s: Seconds of each file, where they are known.
    """

    def __init__(self, num_tests: Counter[str], expected_s: dict[str, float]) -> None:
        self._share_s = {file: expected_s.get(file, _UNLISTED_S) / count for file, count in num_tests.items()}
        self.total_s = sum(self._share_s[file] * count for file, count in num_tests.items())
        self.done_s = 0.0

    def finish(self, file: str) -> None:
        """Count a test of ``file`` as done."""
        self.done_s += self._share_s.get(file, 0.0)

    def left_s(self, elapsed_s: float) -> float | None:
        """Seconds to wait, or None while too little is done to tell."""
        if self.done_s < 0.02 * self.total_s:
            return None
        return max(0.0, elapsed_s * (self.total_s - self.done_s) / self.done_s)


class _Progress:
    """Writes a line when a test fails, and at most one line in ``_QUIET_S`` while all is well."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        self._pace: Pace | None = None
        self._started_s = self._told_s = time.monotonic()

    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._begin(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self._begin([item.nodeid for item in session.items])

    def _begin(self, ids: list[str]) -> None:
        if self._pace is not None:
            return
        self._files = Counter(test.split("::")[0] for test in ids)
        self._pace = Pace(self._files, _expected_s())
        self._started_s = self._told_s = time.monotonic()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if hasattr(report, "wasxfail"):
            return None
        if report.failed:
            return ("failed" if report.when == "call" else "error"), "", ""
        if report.skipped:
            return "skipped", "", ""
        return ("passed", "", "") if report.when == "call" else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.split("::")[0]
        self._seconds[file] += report.duration
        if report.failed:
            self._counts["failed"] += 1
            self._write(f"FAILED {report.nodeid}" + ("" if report.when == "call" else f" ({report.when})"))
        if report.when == "teardown":
            self._counts["done"] += 1
            if self._pace is not None:
                self._pace.finish(file)
            if time.monotonic() - self._told_s >= _QUIET_S:
                self._tell()

    def pytest_sessionfinish(self) -> None:
        if file := self._config.getoption("write_durations"):
            known = json.loads(Path(file).read_text()) if Path(file).exists() else {}
            found = {name: round(seconds, 1) for name, seconds in self._seconds.items()}
            Path(file).write_text(json.dumps({**known, **found}, indent=0, sort_keys=True) + "\n")

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        left_s = None if self._pace is None else self._pace.left_s(self._told_s - self._started_s)
        left = "" if left_s is None else f", about {left_s // 60:.0f}:{left_s % 60:02.0f} left"
        failed = f", {self._counts['failed']} failed" if self._counts["failed"] else ""
        self._write(f"{self._counts['done']:,} of {self._files.total():,} tests done{failed}{left}")

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(line)
            reporter.flush()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by the time that they are expected to take."""
    expected_s = _expected_s()
    items.sort(key=lambda item: -expected_s.get(item.nodeid.split("::")[0], _UNLISTED_S))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--write-durations``."""
    parser.addoption("--write-durations", metavar="FILE", help="note the seconds of each test file there")


def pytest_configure(config: pytest.Config) -> None:
    """Register the reporter, in the process that prints only."""
    if not hasattr(config, "workerinput"):
        # As Ctrl-C, which ends what the tests have started.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        config.pluginmanager.register(_Progress(config), "ship-progress")


def _expected_s() -> dict[str, float]:
    """Seconds of each test file, where they are known."""
    found: dict[str, float] = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    return found
