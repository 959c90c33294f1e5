"""Manifests drawn at random: accepted as they were meant, or refused with the place; never a traceback."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ManifestError
from orchestrator.manifest.load import load_manifest
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.yaml_document import parse_yaml
from orchestrator.names import is_task_name
from tests.unit.json_changes import changed, written

SOUND: dict[str, Any] = {
    "backbone": "bundled",
    "store": "store",
    "workers": 4,
    "min_workers": 1,
    "pack": 3,
    "max_tasks": 50,
    "executor": "actors",
    "defaults": {"epochs": 5, "learning_rate": 0.01},
    "checks": {"dark": 0.5, "label_typos": 2},
    "tasks": [
        {"name": "caps", "data": "data/caps", "tags": {"site": "ulm"}, "priority": 2},
        {"name": "bolts", "data": {"path": "data/bolts", "val_fraction": 0.2, "split_seed": 3}},
        {
            "name": "gears",
            "data": "data/gears",
            "config": {"epochs": 7, "seed": 1},
            "view": {"tiles": "2x2"},
            "deadline": "2031-05-01T12:00:00Z",
            "budget": "2h",
            "gate": {"recall": {"scratch": 0.9}},
        },
    ],
    "tasks_from": ["more/*"],
}
# fmt: off
SCALARS = st.one_of(
    st.sampled_from([
        "1", "-0", "0x1F", "0o17", "017", "1_000", "1e400", "-1e-400", ".inf", "-.Inf", ".nan", "1:30:00",
        "NO", "yes", "~", "null", "''", "2024-13-45", "2024-02-30", "2024-01-01", "2024-01-01 25:00:00",
        "2001-12-14t21:59:43.10-05:00", "!!python/object/apply:os.system [ls]", "!!binary '////'",
        "!!set {a, b}", "!!omap [a: 1]", "!!timestamp x", "!!int x", "!!float x", "!!bool x", "!x y", "&a b",
        "*a", "*nothing", '"\\ud800"', '"\\x00"', '"\\u202e"', "\u0301", "caps", "data/caps", "9" * 400,
        "9" * 5000, "|\n  x", "> y", "[1, 2", "{a: 1", "@x", "`x", "%x", "- - - x", "? x", "=", "<<",
        "\ufeff", "\u2028", "\x85", "\U0001f600",
    ]),
    st.text(max_size=6),
)
KEYS = st.one_of(
    st.sampled_from([
        "tasks", "name", "data", "backbone", "defaults", "epochs", "store", "workers", "checks",
        "tasks_from", "config", "tags", "<<", "1", "yes", "~", "? [x]", "*a", "&a k", "''", '"tasks"',
        "2024-01-01", "!!str k",
    ]),
    st.text(max_size=3),
)
# fmt: on
BOUNDED = settings(
    derandomize=True, max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Lines of YAML at random depths."""
    lines = []
    for _ in range(draw(st.integers(1, 8))):
        indent = "  " * draw(st.integers(0, 3))
        dash = draw(st.sampled_from(["", "", "- "]))
        key = draw(st.sampled_from(["", "k: "])) and f"{draw(KEYS)}: "
        lines.append(f"{indent}{dash}{key}{draw(SCALARS)}")
    return draw(st.sampled_from(["", "tasks: []\n", "---\n", "%YAML 1.1\n---\n"])) + "\n".join(lines)


def test_the_sound_manifest_is_accepted() -> None:
    manifest = load(json.dumps(SOUND).encode())
    assert isinstance(manifest, Manifest)
    names = [task.name for task in manifest.tasks]
    assert names == ["caps", "bolts", "gears", "bolts-2", "caps-2", "gears-2"]


@BOUNDED
@given(changed(SOUND))
def test_a_changed_manifest_is_read_as_it_is_or_refused(document: Any) -> None:
    assert_sound_or_refused(json.dumps(document).encode())


@settings(parent=BOUNDED, max_examples=150)
@given(texts())
def test_any_yaml_is_plain_values_or_refused(text: str) -> None:
    content = text.encode(errors="surrogatepass")
    try:
        value = parse_yaml(content).value
    except ManifestError as error:
        refused = error.problems
    else:
        refused = ()
        assert is_plain(value)
    assert all(refused)
    assert_sound_or_refused(content)


@BOUNDED
@given(st.one_of(written(json.dumps(SOUND, indent=1).encode()), st.binary(max_size=40)))
def test_any_bytes_are_a_manifest_or_refused(content: bytes) -> None:
    assert_sound_or_refused(content)


def load(content: bytes, *, keep_going: bool = False) -> Manifest | tuple[str, ...]:
    """The manifest, or the problems that it is refused for."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("caps", "bolts", "gears"):
            Path(folder, "data", name).mkdir(parents=True)
            Path(folder, "more", f"{name}-2").mkdir(parents=True)
        path = Path(folder, "manifest.yaml")
        path.write_bytes(content)
        try:
            return load_manifest(str(path), keep_going=keep_going)
        except ManifestError as error:
            return error.problems


def assert_sound_or_refused(content: bytes) -> None:
    for keep_going in (False, True):
        found = load(content, keep_going=keep_going)
        if isinstance(found, Manifest):
            assert found.tasks, "a manifest without tasks is refused"
            names = [task.name for task in found.tasks]
            assert all(map(is_task_name, names))
            assert len(set(names)) == len(names)
            assert all(isinstance(task.config.epochs, int) and task.config.epochs > 0 for task in found.tasks)
            assert keep_going or not found.refused
        else:
            assert found
            assert all(problem and len(problem.encode()) < 3000 for problem in found)


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return type(value).__module__ in ("builtins", "datetime") and not isinstance(value, set | tuple)
