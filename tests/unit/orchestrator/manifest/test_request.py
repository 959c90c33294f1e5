from pathlib import Path

import pytest

from orchestrator.errors import ManifestError
from orchestrator.manifest.model import Manifest, RefusedTask, TaskEntry
from orchestrator.manifest.request import Request
from orchestrator.manifest.selection import Selection
from ship.data import DataSource
from ship.settings.config import TuneConfig


def entry(name: str, **tags: str) -> TaskEntry:
    return TaskEntry(name=name, source=DataSource(path=name), config=TuneConfig(), tags=tags)


MANIFEST = Manifest(
    backbone="bundled",
    store=None,
    tasks=(
        entry("weld-1", site="ulm", line="1"),
        entry("weld-2", site="ulm", line="2"),
        entry("caps", site="jena", line="1"),
    ),
    refused=(RefusedTask(name="weld-3", reasons=("no data",), tags={"site": "ulm"}),),
)


def names(only: tuple[str, ...] = (), tags: tuple[str, ...] = ()) -> list[str]:
    chosen = Selection.from_flags(only, tags).apply(MANIFEST)
    return [task.name for task in (*chosen.tasks, *chosen.refused)]


@pytest.mark.parametrize(
    ("only", "tags", "expected"),
    [
        ((), (), ["weld-1", "weld-2", "caps", "weld-3"]),
        (("caps",), (), ["caps"]),
        (("weld-[12]", "caps"), (), ["weld-1", "weld-2", "caps"]),
        (("weld-*",), ("site=ulm",), ["weld-1", "weld-2", "weld-3"]),
        ((), ("site=ulm", "line=2"), ["weld-2"]),
    ],
)
def test_what_is_meant(only: tuple[str, ...], tags: tuple[str, ...], expected: list[str]) -> None:
    assert names(only, tags) == expected


@pytest.mark.parametrize(
    ("only", "tags", "problems"),
    [
        (
            ("weld", "pump", "x*", "caps"),
            (),
            (
                "--only weld: the manifest has no such task; did you mean 'weld-3', 'weld-2', 'weld-1'?",
                "--only pump: the manifest has no such task; it has 4 others",
                "--only x*: matches none of the 4 tasks of the manifest",
            ),
        ),
        (
            (),
            ("site=ulm", "site=jena"),
            ("no task has the tags site=ulm and site=jena; site is one of jena, ulm",),
        ),
        ((), ("site=bonn",), ("no task has the tags site=bonn; site is one of jena, ulm",)),
        (
            ("caps",),
            ("site=ulm", "sit=ulm"),
            (
                "no task selected by --only has the tags site=ulm and sit=ulm; site is one of jena, ulm; no "
                "task has a tag 'sit'",
            ),
        ),
        (
            (),
            ("site", "=ulm"),
            (
                "--tag site: expected KEY=VALUE, such as site=ulm",
                "--tag =ulm: expected KEY=VALUE, such as site=ulm",
            ),
        ),
    ],
)
def test_what_means_nothing_is_an_error(
    only: tuple[str, ...], tags: tuple[str, ...], problems: tuple[str, ...]
) -> None:
    with pytest.raises(ManifestError) as caught:
        names(only, tags)
    assert caught.value.problems == problems


def test_no_thumbnails_overrides_every_task(tmp_path: Path) -> None:
    for name in ("caps", "bolts"):
        (tmp_path / name).mkdir()
    manifest = tmp_path / "lines.yaml"
    manifest.write_text(
        "tasks:\n"
        "- {name: caps, data: caps, thumbnails: true}\n"
        "- {name: bolts, data: bolts, thumbnails: false}\n"
    )
    assert [task.thumbnails for task in Request().load(str(manifest)).tasks] == [True, False]
    secret = Request(thumbnails=False).load(str(manifest))
    assert [task.thumbnails for task in secret.tasks] == [False, False]
