"""Where the processes of an endpoint write what went wrong: Ray keeps their standard error to itself."""

import logging
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path

from orchestrator.line_files import is_torn
from orchestrator.private_files import make_private_folder, open_like_folder
from ship.redaction import RedactingFormatter

__all__ = ["append_to", "open_process_log"]

_LOGGERS = ("orchestrator", "ship")
_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"


class _LogFile(WatchedFileHandler):
    """A log file with no more permissions than its folder, which begins on a fresh line."""

    def _open(self) -> TextIOWrapper:
        begins_torn = is_torn(Path(self.baseFilename))
        # The handler's to close.
        file = open(  # noqa: SIM115
            self.baseFilename, self.mode, encoding=self.encoding, opener=open_like_folder
        )
        assert isinstance(file, TextIOWrapper)
        if begins_torn:
            file.write("\n")
        return file


def open_process_log(file: str) -> None:
    """Have the warnings and errors of this process appended to a file, which may be moved away meanwhile.

    On a node that cannot write it they go where Ray keeps the process' standard error.
    """
    try:
        for name in _LOGGERS:
            append_to(file, name, _FORMAT, logging.WARNING)
    except OSError as error:
        logging.getLogger(__name__).warning("%s cannot be written (%s); see Ray's own logs", file, error)


def append_to(file: str, name: str, line_format: str, level: int) -> None:
    """Have what a logger is told appended to a file, once for each process.

    Raises:
        OSError: It cannot be written.
    """
    logger = logging.getLogger(name)
    if any(isinstance(handler, WatchedFileHandler) for handler in logger.handlers):
        return
    if not (folder := Path(file).absolute().parent).is_dir():
        make_private_folder(folder)
    handler = _LogFile(file, encoding="utf-8")
    handler.setFormatter(RedactingFormatter(line_format))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
