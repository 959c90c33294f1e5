"""A torn last line swallows no other, in every file that is appended to line by line."""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.events import Event
from orchestrator.line_files import append_lines, is_torn
from orchestrator.registry.spool import REJECTED, Spool
from orchestrator.serve.process_log import append_to
from orchestrator.train.run.folder import hold_run
from orchestrator.train.run.view import RunView

TORN = '{"kind": "epo'


def event(number: int) -> Event:
    return Event(kind="leased", task="bolts", key="0" * 64, attempt=number, time_s=1.0)


def tear(path: Path) -> None:
    """Leave what a writer leaves that is killed in the middle of a line."""
    with path.open("ab") as file:
        file.write(TORN.encode())


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b"a\nb\n"), (b"x\n", b"x\na\nb\n"), (b"x\nto", b"x\nto\na\nb\n"), (b"to", b"to\na\nb\n")],
)
def test_lines_begin_on_a_fresh_line(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(before)
    assert is_torn(path) == (before.endswith(b"to"))
    append_lines(path, ["a", "b"])
    assert path.read_bytes() == after
    assert not is_torn(path)


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    assert not is_torn(tmp_path / "lines")
    append_lines(tmp_path / "lines", ["a"], is_synced=True)
    assert (tmp_path / "lines").read_bytes() == b"a\n"


def test_a_spool_that_was_torn_keeps_every_other_record(tmp_path: Path) -> None:
    with closing(Spool(tmp_path)) as spool:
        spool.append([event(1)])
        # As after a write that a full disk broke off.
        tear(next(tmp_path.glob("*.jsonl")))
        spool.append([event(2), event(3)])
    with closing(Spool(tmp_path)) as heir:
        assert heir.take_leftovers() == [event(1), event(2), event(3)]
    assert TORN in (tmp_path / REJECTED).read_text()


def test_the_file_of_rejected_records_is_torn_alone(tmp_path: Path) -> None:
    (tmp_path / REJECTED).write_bytes(TORN.encode())
    Spool(tmp_path).set_aside(["{}"], "unknown task")
    assert (tmp_path / REJECTED).read_text().splitlines() == [TORN, "# unknown task", "{}"]


def test_a_torn_event_of_a_run_is_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hold_run(tmp_path, "run", "lines.yaml") as folder:
        folder.log([event(1)])
        tear(folder.folder / "events.jsonl")
        folder.log([event(2)])
    tear(folder.folder / "events.jsonl")
    assert list(RunView(tmp_path).events()) == [event(1), event(2)]
    assert len([record for record in caplog.records if "is skipped" in record.getMessage()]) == 2


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.line_files")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def test_a_request_log_that_was_torn_goes_on_on_a_fresh_line(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(TORN.encode())
    append_to(str(path), logger.name, "%(message)s", logging.INFO)
    logger.info(json.dumps({"status": 200}))
    assert path.read_text().splitlines() == [TORN, '{"status": 200}']
