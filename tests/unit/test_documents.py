"""Markdown of the repository: links and named paths lead somewhere, lines are short."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from orchestrator.cli.main import cli
from orchestrator.manifest.load import load_manifest

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
DOCUMENTS = [ROOT / path for path in TOP] + sorted(
    path for folder in ("docs", "deploy", "ship", "examples") for path in (ROOT / folder).rglob("*.md")
)
MAX_COLUMNS = 120
FOLDERS = ("orchestrator", "ship", "tests", "deploy", "docs", "examples")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# The others name what was there at the time.
PRESENT = [path for path in DOCUMENTS if path.name not in ("CHANGELOG.md", "log.md")]
# ``ship NAME ...`` up to what ends a command, with or without an option before the name.
COMMAND = re.compile(r"(?<![\w./-])ship ((?:--(?:store|home) \S+ )?[a-z]+\b[^`\n|;#)]*)")

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


def prose(document: Path) -> Iterator[str]:
    """The lines that are neither code nor of a table."""
    is_code = False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith("|"):
            yield line


def code(document: Path) -> str:
    """Blocks of shell commands, and what stands in backticks."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`(ship [^`\n]+)`", "\n".join(prose(document)))
    return "\n".join([*blocks, *spans]).replace("\\\n", " ")


def anchors(document: Path, start: str = "#") -> list[str]:
    """The anchors that GitHub makes of headings."""
    headings = [line.lstrip("#").strip().lower() for line in prose(document) if line.startswith(start)]
    return [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings]


@documents
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@documents
def test_contents_have_every_section(document: Path) -> None:
    start, *_ = "\n".join(prose(document)).split("\n## ")
    if listed := re.findall(r"^(?:- |\d+\. )\[[^]]+\]\(#([^)]+)\)", start, re.MULTILINE):
        assert listed == anchors(document, "## ")


@pytest.mark.parametrize("document", PRESENT, ids=name)
def test_paths_that_are_named_exist(document: Path) -> None:
    """In backticks, from the top of the repository: `ship/method/` or `orchestrator/train/job.py`."""
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", document.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", PRESENT, ids=name)
def test_commands_that_are_shown_exist(document: Path) -> None:
    unknown = []
    for shown in COMMAND.findall(code(document)):
        words = re.sub(r"^--\w+ \S+ ", "", shown).split()
        command = cli.commands.get(words[0])
        if isinstance(command, click.Group) and len(words) > 1:
            command = command.commands.get(words[1])
        known = {flag for parameter in command.params for flag in parameter.opts} if command else set()
        flags = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
        if command is None or not flags <= known:
            unknown.append(shown)
    assert unknown == []


@pytest.mark.parametrize("document", PRESENT, ids=name)
def test_manifests_that_are_shown_are_taken(document: Path, tmp_path: Path) -> None:
    """With all of their settings, on data that is there."""
    blocks = re.findall(r"```yaml\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    shown = [value for block in blocks for value in yaml.safe_load_all(block)]
    manifest = tmp_path / "lines.yaml"
    for value in shown:
        if not isinstance(value, dict) or not {"tasks", "defaults"} & value.keys():
            continue
        tasks = value.pop("tasks", [{"name": "caps"}])
        value.pop("tasks_from", None)
        for task in tasks:
            data = task.get("data")
            task["data"] = {**(data if isinstance(data, dict) else {}), "path": str(tmp_path)}
            task["data"].pop("more", None)
        manifest.write_text(yaml.safe_dump({**value, "tasks": tasks}))
        assert load_manifest(str(manifest)).tasks


@documents
def test_lines_are_short(document: Path) -> None:
    assert [line for line in prose(document) if len(line) > MAX_COLUMNS] == []


def test_no_document_is_left_out() -> None:
    # Those of the tests are data.
    command = ["git", "ls-files", "*.md", ":!tests"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert set(listed.stdout.split()) <= {name(path) for path in DOCUMENTS}
