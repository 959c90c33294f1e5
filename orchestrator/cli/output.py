"""Where commands print, with which settings they work, and the statuses that they end with."""

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from rich.console import Console

from orchestrator.private_files import make_private_folder
from orchestrator.registry.plain_values import format_time
from orchestrator.settings import Settings
from ship.redaction import redact_values

if TYPE_CHECKING:
    from orchestrator.registry.registry import Registry
    from orchestrator.registry.requests import Requests
    from orchestrator.registry.rollouts import Rollouts
    from orchestrator.registry.thresholds import Thresholds
    from orchestrator.store.documents.audit import Author
    from orchestrator.store.objects.protocol import ObjectStore
    from orchestrator.store.prompt_store import PromptStore

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_WAITING",
    "Output",
    "format_size",
    "format_time",
    "printable",
]

PIPE_COLUMNS = 200
_UNITS = ("bytes", "KB", "MB", "GB", "TB")
EXIT_FAILED, EXIT_BAD_INPUT, EXIT_WAITING, EXIT_INTERRUPTED = 1, 2, 3, 130


class Output:
    """Where a command prints, and with which settings it works."""

    def __init__(self, home: str | None = None, store: str | None = None) -> None:
        self.home, self.store = home, store
        self._has_printed_json = False
        # Only what examines a home leaves it open.
        self.closes_home = True
        # Rich cuts tables to 80 columns where there is no terminal: in a file or a pipe nothing is too wide.
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        width = None if is_terminal or "COLUMNS" in os.environ else PIPE_COLUMNS
        self.out, self.err = Console(highlight=False, width=width), Console(stderr=True, highlight=False)

    def settings(self, manifest_store: str | None = None) -> Settings:
        """Flags win over the manifest, and the manifest over the environment."""
        settings = Settings.from_env(os.environ, home=self.home, store=self.store or manifest_store)
        if self.closes_home and settings.home.is_dir():
            # A home that an older version or the user made; a disk that is read-only stays as it is.
            with suppress(OSError):
                make_private_folder(settings.home)
        return settings

    def registry(self, *, may_create: bool = False) -> "Registry":
        """The registry that the settings name; made if it is not there only for what records."""
        from orchestrator.registry.registry import Registry

        settings = self.settings()
        return Registry(settings.tracking_uri, settings.artifact_location, may_create=may_create)

    def objects(self) -> "ObjectStore":
        """The objects of the store that the settings name."""
        from orchestrator.store.objects.open import open_objects

        return open_objects(self.settings().store)

    def prompt_store(self) -> "PromptStore":
        """The store that the settings name."""
        from orchestrator.store.prompt_store import PromptStore

        return PromptStore(self.objects())

    def rollouts(self, author: "Author | None" = None) -> "Rollouts":
        """The rollouts of the store and the registry that the settings name.

        Args:
            author: Author of the changes that are made; by default the user of this process.
        """
        from orchestrator.registry.rollouts import Rollouts

        return Rollouts(self.registry(), self.prompt_store(), author)

    def requests(self, author: "Author | None" = None) -> "Requests":
        """The promotions that wait in the store that the settings name; see ``rollouts``."""
        from orchestrator.registry.requests import Requests

        return Requests(self.registry(), self.prompt_store(), author)

    def thresholds(self, author: "Author | None" = None) -> "Thresholds":
        """The decision rules of the store and the registry that the settings name; see ``rollouts``."""
        from orchestrator.registry.thresholds import Thresholds

        return Thresholds(self.registry(), self.prompt_store(), self.rollouts(author))

    def print_line(self, text: str, style: str | None = None) -> None:
        """One line on standard output as it is: in one piece, whatever the terminal's width."""
        self.out.print(text, style=style, markup=False, soft_wrap=True)

    def print_json(self, value: object) -> None:
        """One JSON document on standard output."""
        self._has_printed_json = True
        click.echo(_to_json(value, indent=2))

    def print_error(self, kind: str, message: str, status: int) -> None:
        """An error as JSON on one line of standard output, unless the command has printed its document."""
        if not self._has_printed_json:
            error = {"kind": kind, "message": message, "exit_status": status}
            click.echo(_to_json({"error": error}))


def _to_json(value: object, indent: int | None = None) -> str:
    redacted = redact_values(value)
    text = json.dumps(redacted, indent=indent, ensure_ascii=False)
    # A file name that is not UTF-8 has halves of characters, which nothing but an escape can print.
    return text if _is_utf8(text) else json.dumps(redacted, indent=indent)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Text for a terminal or a page, without control characters, which a file's name may have: escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def format_size(num_bytes: int) -> str:
    """A size for people."""
    size, unit = float(num_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{num_bytes} bytes" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
