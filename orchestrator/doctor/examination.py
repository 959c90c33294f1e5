"""The course of an examination: one check after the other, each with a deadline, none with a secret in it.

A check runs in a thread that nobody waits for: one that hangs, in a driver of a store or in a system call,
costs its deadline and is named.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.doctor.row import Place, Row, fail, skipped
from ship.errors import ShipError
from ship.redaction import HIDDEN, Url, redact_text

__all__ = ["Check", "Examination", "examine"]

_SECRET_NAME = re.compile(r"(?i)pass|token|secret|credential|_key(?:_|$)")
# These name a file or a mode.
_PLAIN_NAME = re.compile(r"(?i)(?:_file|_path|_mode)$")
# Shorter ones would cut words out of a message that have nothing to do with them.
_MIN_SECRET_CHARS = 6


@dataclass(frozen=True, kw_only=True)
class Check:
    """A named look at one thing.

    Attributes:
        name: Name of the check.
        look: Looks, and changes nothing; a ``ShipError`` that it raises is a finding.
        needs: Names of earlier checks without whose things there is nothing to look at.
        expected: What it expects, for the row of an error.
    """

    name: str
    look: Callable[[Place], Iterable[Row]]
    needs: tuple[str, ...] = ()
    expected: str = ""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Result of all checks.

    Attributes:
        rows: Rows by name of the check, in order.
        hung: Checks that did not end in time; their threads are still at work.
    """

    rows: Mapping[str, Sequence[Row]]
    hung: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Name of the check and row, of all rows."""
        return ((name, row) for name, rows in self.rows.items() for row in rows)

    def count(self, state: str) -> int:
        """Number of rows in a state."""
        return sum(row.state == state for _, row in self)


def examine(place: Place, checks: Iterable[Check], deadline_s: float) -> Examination:
    """Run checks.

    Args:
        place: The installation.
        checks: The checks, those that others need before them.
        deadline_s: Most seconds that one may take.
    """
    found: dict[str, tuple[Row, ...]] = {}
    hung: list[str] = []
    for check in checks:
        if lacking := [name for name in check.needs if _is_unusable(found.get(name, ()))]:
            found[check.name] = (skipped(check.name, f"needs {' and '.join(lacking)}"),)
            continue
        look = _Look(check, place)
        rows, is_done = look.wait(deadline_s)
        if not is_done:
            hung.append(check.name)
        found[check.name] = tuple(_without_secrets(row, place) for row in rows)
    return Examination(rows=found, hung=tuple(hung))


def _is_unusable(rows: Sequence[Row]) -> bool:
    """Whether there is nothing to look at, or it does not work."""
    return not rows or rows[0].state == "skipped" or any(row.state == "fail" for row in rows)


class _Look:
    """One check at work, in a thread of its own."""

    def __init__(self, check: Check, place: Place) -> None:
        self._check = check
        self._rows: list[Row] = []
        # Not one of an executor's, which the interpreter would wait for at its end.
        self._thread = threading.Thread(
            target=self._run, args=(place,), name=f"doctor-{check.name}", daemon=True
        )
        self._thread.start()

    def wait(self, deadline_s: float) -> tuple[list[Row], bool]:
        """Its rows once it has ended, or those until now; and whether it has ended."""
        self._thread.join(deadline_s)
        if not self._thread.is_alive():
            return self._rows, True
        late = fail(
            self._check.name,
            f"no answer within {deadline_s:g} s",
            self._check.expected or "an answer in time",
            "see whether it is overloaded or unreachable; `ship doctor --deadline SECONDS` waits longer",
        )
        return [*self._rows, late], False

    def _run(self, place: Place) -> None:
        check = self._check
        try:
            for row in check.look(place):
                self._rows.append(row)
        except ShipError as error:
            # Messages of errors say what to do themselves.
            self._rows += [fail(check.name, problem, check.expected, "") for problem in error.problems]
        # A boundary: a check that fails itself is a finding, too.
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            self._rows.append(fail(check.name, said, check.expected, "correct what it names, or report it"))


def _without_secrets(row: Row, place: Place) -> Row:
    settings = place.settings
    urls = [settings.store, settings.tracking_uri, settings.ray_address or "", place.endpoint or ""]
    urls += [value for value in place.environ.values() if "://" in value]
    secrets = {
        value
        for name, value in place.environ.items()
        if _SECRET_NAME.search(name) and not _PLAIN_NAME.search(name) and len(value) >= _MIN_SECRET_CHARS
    }

    def clean(text: str) -> str:
        for url in urls:
            text = Url(url).redact(text)
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return redact_text(text)

    return replace(row, found=clean(row.found), expected=clean(row.expected), advice=clean(row.advice))
