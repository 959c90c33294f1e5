"""Where the processes of an endpoint write what went wrong: Ray keeps their standard error to itself."""

import fcntl
import logging
import os
from contextlib import suppress
from io import TextIOWrapper
from itertools import pairwise
from logging.handlers import WatchedFileHandler
from pathlib import Path

from orchestrator.line_files import is_torn
from orchestrator.private_files import make_private_folder, open_like_folder
from ship.redaction import RedactingFormatter

__all__ = ["append_to", "open_process_log"]

_LOGGERS = ("orchestrator", "ship")
# Of a log of problems and each of its earlier parts, ``serve.log.1`` the last of them.
MAX_BYTES, NUM_EARLIER = 32 << 20, 3
_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"


class _LogFile(WatchedFileHandler):
    """A log file with no more permissions than its folder, which begins on a fresh line.

    Args:
        file: Path of the file, which several processes may write.
        max_bytes: Size from which a new file takes its place; None leaves that to others.
    """

    def __init__(self, file: str, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        super().__init__(file, encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, to a new file if this one is full."""
        with suppress(OSError):
            self.reopenIfNeeded()
            stream, most = self.stream, self._max_bytes
            if stream is not None and most is not None and os.fstat(stream.fileno()).st_size >= most:
                self._begin_anew(stream)
        super().emit(record)

    def _begin_anew(self, stream: TextIOWrapper) -> None:
        """Put the file aside, unless another process has done so."""
        # Of all that write to this very file one goes first; the others find another one in its place.
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            mine, now = os.fstat(stream.fileno()), os.stat(self.baseFilename)
            if (mine.st_dev, mine.st_ino) != (now.st_dev, now.st_ino):
                return
            parts = [self.baseFilename, *(f"{self.baseFilename}.{n}" for n in range(1, NUM_EARLIER + 1))]
            for newer, older in reversed(list(pairwise(parts))):
                with suppress(FileNotFoundError):
                    os.replace(newer, older)
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)

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


def open_process_log(file: str, max_bytes: int = MAX_BYTES) -> None:
    """Have the warnings and errors of this process appended to a file, which may be moved away meanwhile.

    On a node that cannot write it they go where Ray keeps the process' standard error.

    Args:
        file: Path of the file; a full one is put aside, and the last few of those stay.
        max_bytes: Size from which it is full.
    """
    try:
        for name in _LOGGERS:
            append_to(file, name, _FORMAT, logging.WARNING, max_bytes)
    except OSError as error:
        logging.getLogger(__name__).warning("%s cannot be written (%s); see Ray's own logs", file, error)


def append_to(file: str, name: str, line_format: str, level: int, max_bytes: int | None = None) -> None:
    """Have what a logger is told appended to a file, once for each process.

    Raises:
        OSError: It cannot be written.
    """
    logger = logging.getLogger(name)
    if any(isinstance(handler, WatchedFileHandler) for handler in logger.handlers):
        return
    if not (folder := Path(file).absolute().parent).is_dir():
        make_private_folder(folder)
    handler = _LogFile(file, max_bytes)
    handler.setFormatter(RedactingFormatter(line_format))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
