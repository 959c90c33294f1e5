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


def test_a_full_file_is_put_aside_once_and_the_last_few_stay(tmp_path: Path):
    file = tmp_path / "serve.log"
    open_process_log(str(file), max_bytes=1000)
    # The handlers of two loggers are as two processes: each has the file open.
    loggers = [logging.getLogger(name) for name in ("orchestrator.a", "ship.b")]
    for number in range(200):
        loggers[number % 2].warning("line %03d %s", number, "x" * 50)
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == ["serve.log", "serve.log.1", "serve.log.2", "serve.log.3"]
    assert all(path.stat().st_size < 1200 for path in kept)
    lines = [line for path in [*kept[:0:-1], kept[0]] for line in path.read_text().splitlines()]
    numbers = [int(line.split("line ")[1][:3]) for line in lines]
    assert numbers == list(range(numbers[0], 200)), "none is lost or moved between the files that stay"
