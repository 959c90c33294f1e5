"""Problems of a manifest: all at once, each with its place and line, and what to do about it."""

from pathlib import Path

import pytest

from orchestrator.errors import ManifestError
from orchestrator.manifest.load import MAX_MANIFEST_BYTES, load_manifest
from tests.unit.orchestrator.manifest.factory import problems_of


@pytest.mark.parametrize(
    "name", ["/site", "site/", "../site", "a//b", "a/../b", ".", "..", "SHIP.x", "MLflow.x"]
)
def test_tags_that_mlflow_would_refuse_are_refused_here(folder: Path, name: str) -> None:
    [problem] = problems_of(folder, f"tasks: [{{name: a, data: data/caps, tags: {{{name!r}: ulm}}}}]\n")
    assert "expected a tag name" in problem


def test_wrong_presets_and_searches_are_told_with_their_place(folder: Path) -> None:
    problems = problems_of(
        folder,
        """preset: fast
search: {learning_rates: [1], learning_rate: 0.1}
tasks:
- {name: a, data: data/caps, search: {threshold: [2.0, often]}}
- {name: b, data: data/caps, search: all}
""",
    )

    assert problems == [
        "preset (line 1): expected 'quick', 'balanced' or 'best', got 'fast'",
        "search.learning_rates (line 2): unknown key; did you mean 'learning_rate'?",
        "search.learning_rate (line 2): expected a list of different values, got 0.1",
        "tasks[0].search.threshold (line 4): expected `auto` or a number from -1 to 1 "
        "(published: 0.93 to 0.98), got 2.0",
        "tasks[0].search.threshold (line 4): expected `auto` or a number from -1 to 1 "
        "(published: 0.93 to 0.98), got 'often'",
        "tasks[1].search (line 5): expected lists of values by setting, or false, got 'all'",
    ]


def test_a_preset_among_the_defaults_is_told_its_place(folder: Path) -> None:
    assert problems_of(folder, "defaults: {preset: quick}\ntasks: [{name: a, data: data/caps}]\n") == [
        "defaults.preset (line 1): 'preset' of all tasks stands beside `defaults`, at the top of the manifest"
    ]


BROKEN = """version: 2
backbon: bundled
backbone: on
store: 5
workers: 0
defaults: {epochs: ten, learning_rat: 0.1}
tasks:
  - name: ../x
    data: ./nothing
    config: {epoch: 5, epochs: 0}
  - data: {path: data/caps, formt: csv, val_fraction: 2}
    tags: {site: [1], mlflow.user: me}
    extra: 1
  - hello
  - name: 5
    data: 7
  - name: a
    data: data/caps
  - name: a
    data: data/none
    config: {epochs: 0}
tasks_from: ./none/*
"""


def test_every_problem_at_once_in_the_order_of_lines(folder: Path) -> None:
    problems = problems_of(folder, BROKEN)

    assert [problem.split(": ")[0] for problem in problems] == [
        "version (line 1)",
        "backbon (line 2)",
        "backbone (line 3)",
        "store (line 4)",
        "workers (line 5)",
        "defaults.learning_rat (line 6)",
        "defaults.epochs (line 6)",
        "tasks[0].name (line 8)",
        "tasks[0].data (line 9)",
        "tasks[0].config.epoch (line 10)",
        "tasks[0].config.epochs (line 10)",
        "tasks[1].name (line 11)",
        "tasks[1].data.formt (line 11)",
        "tasks[1].data.val_fraction (line 11)",
        "tasks[1].tags.site (line 12)",
        "tasks[1].tags.mlflow.user (line 12)",
        "tasks[1].extra (line 13)",
        "tasks[2] (line 14)",
        "tasks[3].name (line 15)",
        "tasks[3].data (line 16)",
        "tasks[5].name (line 19)",
        "tasks[5].data (line 20)",
        "tasks[5].config.epochs (line 21)",
        "tasks_from (line 22)",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("taks: []", "taks (line 1): unknown key; did you mean 'tasks'?"),
        ("tasks: [{name: a, dta: x}]", "tasks[0].dta (line 1): unknown key; did you mean 'data'?"),
        (
            "tasks: [{name: a, data: data/caps, config: {num_indep: 5}}]",
            "tasks[0].config.num_indep (line 1): unknown key; did you mean 'num_independent'?",
        ),
        (
            "tasks: [{name: a, data: data/caps, config: {threshold: high}}]",
            "tasks[0].config.threshold (line 1): expected `auto` or a number from -1 to 1 "
            "(published: 0.93 to 0.98), got 'high'",
        ),
        (
            "tasks: [{name: a, data: data/caps, config: {attention: joint}}]",
            "tasks[0].config.attention (line 1): unknown key; did you mean 'attention_scale'?",
        ),
        (
            "tasks: [{name: yes, data: data/caps}]",
            "tasks[0].name (line 1): expected text, got True; put it in quotes",
        ),
        ("tasks: {a: data/caps}", "tasks (line 1): expected a list, got a mapping"),
        ("defaults: [1]", "defaults (line 1): expected a mapping, got a list"),
        ("workers: 1.5", "workers (line 1): expected a whole number, got 1.5"),
        ("version: '1'", "version (line 1): expected 1, got '1'"),
        (
            "tasks: []",
            "manifest: no tasks; list at least one under tasks, or name folders of tasks under tasks_from",
        ),
        ("tasks: [{name: a}]", "tasks[0].data (line 1): missing"),
        (
            "tasks: [{name: a, data: {format: csv}}]",
            "tasks[0].data (line 1): path: missing; expected a folder, a file or a URL",
        ),
    ],
)
def test_each_problem_says_what_to_do(folder: Path, text: str, problem: str) -> None:
    assert problem in problems_of(folder, text)


def test_folder_whose_name_is_no_task_name(folder: Path) -> None:
    (folder / "data" / "Big Caps").mkdir()

    (problem,) = problems_of(folder, "tasks_from: data/*")
    assert problem.startswith("tasks_from (line 1): task name 'Big Caps': expected 1 to 63 characters")


def test_folder_that_is_listed_too(folder: Path) -> None:
    (problem,) = problems_of(folder, "tasks: [{name: caps, data: data/caps}]\ntasks_from: data/*")
    assert problem == "tasks_from (line 2): 'caps' is already taken by tasks[0].name (line 1)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found nothing"),
        (b"- a\n- b\n", "found a list"),
        (b"just text", "found 'just text'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "not valid YAML"),
        (b"tasks: [\n", "not valid YAML: line 2, column 1"),
        (b"tasks: 1\ntasks: 2\n", "line 2: key 'tasks' is repeated"),
        (b"#" * (MAX_MANIFEST_BYTES + 1), "expected at most 8388608 bytes"),
    ],
)
def test_files_that_are_no_manifest(folder: Path, content: bytes, message: str) -> None:
    path = folder / "manifest.yaml"
    path.write_bytes(content)

    with pytest.raises(ManifestError, match=message) as caught:
        load_manifest(str(path))
    assert str(path) in str(caught.value)


def test_no_such_manifest(folder: Path) -> None:
    with pytest.raises(ManifestError, match="no such file or folder"):
        load_manifest(str(folder / "no.yaml"))
    with pytest.raises(ManifestError, match="expected a file, found a directory"):
        load_manifest(str(folder))
