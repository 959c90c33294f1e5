"""docs/troubleshooting.md: messages are those of the code, and every exit status is told."""

import re
from pathlib import Path

import pytest

from orchestrator.cli.main import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
# Of MLflow itself.
FOREIGN = ("Detected out-of-date database schema",)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table after a heading."""
    lines = TEXT.split(f"\n{heading}\n")[1].split("\n## ")[0].splitlines()
    cells = [
        [cell.strip() for cell in re.split(r"(?<!`)\|(?!`)", line)[1:-1]] for line in lines if line[:1] == "|"
    ]
    return [
        row for row in cells if not set(row[0]) <= {"-"} and row[0] not in ("message", "status", "command")
    ]


def literals() -> str:
    """All of the code, string literals over several lines joined."""
    sources = [
        path.read_text(encoding="utf-8")
        for package in ("orchestrator", "ship")
        for path in (ROOT / package).rglob("*.py")
    ]
    return re.sub(r"\"\s*\n\s*f?\"", "", "\n".join(sources))


def test_every_message_is_one_of_the_code() -> None:
    code = literals()
    messages = [row[0][1:-1] for row in rows("## Messages")]
    assert len(messages) > 15
    parts = [part for message in messages if message not in FOREIGN for part in message.split("...")]
    assert [part for part in parts if part not in code] == []


def test_every_command_of_the_tables_is_one() -> None:
    named = re.findall(r"`ship ([a-z]+)`", "\n".join(row[0] for row in rows("## Exit statuses")))
    assert named
    assert [name for name in named if name not in cli.commands] == []


@pytest.mark.parametrize("name", ["EXIT_FAILED", "EXIT_BAD_INPUT", "EXIT_WAITING", "EXIT_INTERRUPTED"])
def test_every_status_is_told(name: str) -> None:
    from orchestrator.cli import output

    assert any(row[0] == str(getattr(output, name)) for row in rows("## Exit statuses"))


def test_commands_end_with_these_statuses_alone() -> None:
    ends = [
        found
        for path in (ROOT / "orchestrator" / "cli").glob("*.py")
        for found in re.findall(
            r"(?:sys\.exit|os\._exit|\.exit)\(([^)]*)\)", path.read_text(encoding="utf-8")
        )
    ]
    known = {"EXIT_FAILED", "EXIT_WAITING", "EXIT_INTERRUPTED", "status", "0 if is_well else EXIT_FAILED"}
    assert set(ends) <= known
