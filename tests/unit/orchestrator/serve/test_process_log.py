"""Log file of a process of an endpoint: each warning and error once, with time and place."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.serve.process_log import open_process_log


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Leave no handler behind."""
    kept = {name: logging.getLogger(name) for name in ("orchestrator", "ship")}
    before = {name: (logger.level, logger.propagate, logger.handlers[:]) for name, logger in kept.items()}
    yield
    for name, logger in kept.items():
        for handler in logger.handlers[:]:
            if handler not in before[name][2]:
                logger.removeHandler(handler)
                handler.close()
        logger.setLevel(before[name][0])
        logger.propagate = before[name][1]


def test_warnings_of_ours_are_found_in_the_file_once(tmp_path: Path):
    file = tmp_path / "home" / "serve.log"
    for _ in range(2):
        open_process_log(str(file))
    logging.getLogger("orchestrator.serve.residency.residency").warning("task %s cannot be served", "bolts")
    logging.getLogger("orchestrator.serve.residency.residency").info("all is well")
    logging.getLogger("ray.serve").warning("of no use")
    [line] = file.read_text().splitlines()
    assert "WARNING orchestrator.serve.residency.residency[" in line
    assert line.endswith("task bolts cannot be served")


def test_a_file_that_cannot_be_written_is_no_reason_not_to_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "home").write_text("a file where a folder should be")
    open_process_log(str(tmp_path / "home" / "serve.log"))
    assert "cannot be written" in caplog.text
