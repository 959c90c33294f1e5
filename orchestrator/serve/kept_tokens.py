"""The last tokens on this machine's own disk: an endpoint that starts while the store is down knows them.

They hold digests of secrets, as the store does. How old they are is told by a record in the file of when the
store was last read, by the wall clock. What goes wrong here costs that and nothing else.
"""

import hashlib
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.bounded_folder import BoundedFolder
from orchestrator.errors import StoreError
from orchestrator.store.documents.document import Document
from orchestrator.store.documents.tokens import MAX_TIME_S, Tokens
from orchestrator.store.prompt_store import MAX_TOKENS_BYTES

__all__ = ["KeptTokens", "open_kept_tokens"]

FOLDER = "tokens"
# The record, a line before the tokens.
_MAX_BYTES = MAX_TOKENS_BYTES + 200
# Of all stores that this machine follows.
_LIMIT_BYTES = 16 * _MAX_BYTES
# Clocks are set back by seconds all the time. By more than that, an age cannot be told.
_CLOCK_SLACK_S = 60.0
_ADVICE = "it is replaced once the store can be read"
_log = logging.getLogger(__name__)


class KeptTokens:
    """A file of a folder that processes may share.

    Args:
        folder: Folder of this user alone.
        store_url: URL of the store whose tokens they are.
        clock: Wall clock, in seconds since the epoch.
    """

    def __init__(self, folder: Path, store_url: str, clock: Callable[[], float] = time.time) -> None:
        self._files = BoundedFolder(folder, _LIMIT_BYTES)
        digest = hashlib.sha256(store_url.encode(errors="surrogatepass")).hexdigest()
        self._name = f"{digest[:32]}.json"
        self._clock = clock
        self._warned = threading.Event()

    def keep(self, tokens: Tokens, age_s: float = 0.0) -> None:
        """Keep tokens that the store had ``age_s`` ago, in place of those before."""
        record = {"schema": 1, "read_s": self._clock() - age_s}
        # Their trail is the audit log's, and nothing that an endpoint needs.
        kept = Tokens(by_name=tokens.by_name, broken=tokens.broken)
        content = json.dumps(record).encode() + b"\n" + kept.to_json()
        try:
            self._files.keep(self._name, len(content), lambda path: path.write_bytes(content))
        except OSError as error:
            if not self._warned.is_set():
                self._warned.set()
                _log.warning(
                    "the tokens are not kept on disk: %s; serving goes on without (SHIP_CACHE)", error
                )

    def read(self) -> tuple[Tokens, float] | None:
        """The tokens, and how long ago the store had them, in seconds; None if there are none to be used."""
        path = self._files.path(self._name)
        try:
            with open(path, "rb", opener=_open_own) as file:
                content = file.read(_MAX_BYTES + 1)
            if len(content) > _MAX_BYTES:
                raise StoreError(f"more than {_MAX_BYTES} bytes")
            record, _, document = content.partition(b"\n")
            age_s = self._clock() - _Record.read(record, "record", _ADVICE).read_s
            if age_s < -_CLOCK_SLACK_S:
                raise StoreError(f"{-age_s:.0f} s from the future by this machine's clock; correct the clock")
            return Tokens.from_json(document), max(0.0, age_s)
        except FileNotFoundError:
            return None
        except (OSError, StoreError) as error:
            _log.warning("%s cannot be used: %s", path, error)
            return None


def open_kept_tokens(store_url: str, cache: str | None) -> KeptTokens | None:
    """The tokens of a store below a cache's folder, if there is one."""
    return None if cache is None else KeptTokens(Path(cache).expanduser() / FOLDER, store_url)


class _Record(Document):
    schema_: Literal[1] = Field(alias="schema")
    read_s: Annotated[float, Field(ge=0, le=MAX_TIME_S)]


def _open_own(path: str, flags: int) -> int:
    """Open a file that no other user can have written: with it one could make oneself a token."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise PermissionError(f"it is not this user's alone: mode {stat.S_IMODE(found.st_mode):o}")
    return descriptor
