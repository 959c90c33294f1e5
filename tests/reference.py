"""Generator of docs/reference.md: commands, settings, problem kinds and metrics, as the code has them.

``python -m tests.reference`` (``make reference``) writes the file; a unit test holds it equal to the code.
"""

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.main import cli
from orchestrator.manifest.json_schema import manifest_json_schema
from orchestrator.serve.ingress.middleware.metrics import Metrics
from orchestrator.serve.ingress.peers import render_page
from orchestrator.serve.ingress.problem_kinds import KINDS
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reference.md"
WIDTH = 118

INTRODUCTION = """\
# Reference

Generated from the code by `make reference`; do not edit by hand. The guides say how the parts work together:
[tuning](tuning.md), [registry](registry.md), [serving](serving.md), [operating](operating.md).

- [Commands](#commands)
- [Manifest](#manifest)
- [Environment variables](#environment-variables)
- [Problem kinds](#problem-kinds)
- [Metrics](#metrics)
"""
SECTIONS = {
    "": "Top level",
    "Task": "An entry of `tasks`",
    "Folder": "An entry of `tasks_from`",
    "Data": "`data` as a mapping",
    "Settings": "Settings of tuning: `defaults` and `config`",
    "Search": "`search`",
    "Checks": "`checks`",
}
# Variables that are read elsewhere than in `Settings`.
VARIABLES = {
    "SHIP_TOKEN": "Token that `ship predict`, `ship explain` and the Python client send to the endpoint.",
    "SHIP_URL": "Endpoint that `ship predict` and `ship explain` ask, `http://127.0.0.1:8000` by default; "
    "`ship console` and `ship doctor` look at it, too.",
    "SHIP_ENDPOINT": "Endpoint that `ship doctor` looks at in place of that of `SHIP_URL`.",
    "AWS_*, AWS_ENDPOINT_URL": "Credentials, region and address of S3, as boto3 reads them.",
}


def render() -> str:
    """The whole document."""
    parts = [INTRODUCTION, *_commands(), *_manifest(), *_environment(), *_problems(), *_metrics()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _commands() -> Iterator[str]:
    yield "## Commands"
    root = click.Context(cli, info_name="ship")
    yield _command(root)
    for context in _walk(root):
        yield f"### {context.command_path}\n\n{_command(context)}"


def _walk(context: click.Context) -> Iterator[click.Context]:
    assert isinstance(context.command, click.Group)
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command is not None
        child = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _walk(child)
        else:
            yield child


def _command(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    options = [
        found
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and (found := parameter.get_help_record(context))
        and "--help" not in found[0]
    ]
    rows = [(f"`{flags}`", " ".join(meaning.split())) for flags, meaning in options]
    return f"`{usage}`\n\n{_help(command)}\n\n{_table(('option', 'meaning'), rows)}"


def _help(command: click.Command) -> str:
    """The help text in Markdown: paragraphs are wrapped, what click must not wrap is a block of code."""
    found = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            head, *lines = paragraph[2:].split("\n")
            found.append(f"{head}\n\n```sh\n" + textwrap.dedent("\n".join(lines)) + "\n```")
        else:
            found.append(_wrap(paragraph))
    return "\n\n".join(found)


def _manifest() -> Iterator[str]:
    schema = manifest_json_schema()
    yield "## Manifest"
    yield _wrap(
        "YAML; unknown keys are refused. [manifest.schema.json](manifest.schema.json) says the same to "
        "editors. `defaults` takes every setting of tuning and `data` without a path, `view`, `gate`, "
        "`thumbnails`, `tags`, `priority`, `deadline`, `budget` and `approvals`; an entry of `tasks_from` "
        "may be the path alone, and `data` too."
    )
    for name, title in SECTIONS.items():
        model = schema["$defs"][name] if name else schema
        model = next((choice for choice in model.get("anyOf", []) if "properties" in choice), model)
        required = model.get("required", [])
        rows = [
            (f"`{key}`", _type(value), _default(value, key in required), value["description"])
            for key, value in model["properties"].items()
        ]
        yield f"### {title}\n\n{_table(('key', 'value', 'default', 'meaning'), rows)}"


def _type(value: dict[str, Any]) -> str:
    """The values that a key takes, in a few words."""
    if "$ref" in value:
        return value["$ref"].rsplit("/")[-1].lower()
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{str(value['const']).lower()}`"
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"] if choice.get("type") != "null")
    if value["type"] == "array":
        return f"list of {_type(value['items'])}" if "items" in value else "list"
    words = {"object": "mapping", "string": "text", "integer": "whole number", "boolean": "yes or no"}
    return words.get(value["type"], value["type"])


def _default(value: dict[str, Any], is_required: bool) -> str:
    if is_required:
        return "required"
    default = value.get("default")
    return "" if default in (None, [], ()) else f"`{default}`"


def _environment() -> Iterator[str]:
    yield "## Environment variables"
    documented = dict(VARIABLES)
    attributes = (inspect.getdoc(Settings) or "").partition("Attributes:\n")[2]
    for text in re.split(r"\n(?=    \w+: )", attributes):
        meaning = " ".join(text.split()).partition(": ")[2].replace("``", "`")
        documented |= dict.fromkeys(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", meaning), meaning)
    sources = "\n".join(path.read_text() for path in (ROOT / "orchestrator").rglob("*.py"))
    if missing := set(re.findall(r"\bSHIP_[A-Z_]+\b", sources)) - set(documented):
        raise LookupError(f"variables that the code names and nothing documents: {sorted(missing)}")
    yield _table(("variable", "meaning"), [(f"`{name}`", documented[name]) for name in sorted(documented)])


def _problems() -> Iterator[str]:
    yield "## Problem kinds"
    yield _wrap(
        "Errors of the endpoint are RFC 9457 problem documents (`application/problem+json`); their `type` is "
        '`urn:ship:problem:` and the kind. Below `/v2` they are `{"error": "title: detail"}`.'
    )
    yield _table(("status", "kind", "title", "when"), sorted(_kinds(), key=lambda row: row[0]))


def _kinds() -> Iterable[tuple[str, str, str, str]]:
    """Status, kind, title, and when the endpoint answers with it."""
    return [(str(kind.status), f"`{name}`", kind.title, kind.when) for name, kind in KINDS.items()]


def _metrics() -> Iterator[str]:
    yield "## Metrics"
    yield "`GET /metrics` is a page for Prometheus."
    metrics = Metrics()
    page = render_page({"": metrics.families()}, metrics.engine_families()).decode()
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", page, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    names = [name for name in helps if not name.endswith("_created")]
    yield _table(("metric", "type", "meaning"), [(f"`{name}`", types[name], helps[name]) for name in names])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    if not lines:
        return ""
    top = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*top, *(f"| {line} |" for line in lines)])


def _wrap(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
