"""How a plan reads data that lies in slow places: a mounted folder looks like any other."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from orchestrator.manifest.model import Manifest, TaskEntry
from ship.data import DataSource
from ship.settings.config import TuneConfig
from tests.unit.orchestrator.planning.factory import plan

PATIENCE_S = 60.0
NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture
def six(tmp_path: Path) -> Manifest:
    """Six tasks of two classes, with three images each."""
    entries = []
    for name in NAMES:
        for label in ("ok", "bad"):
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(3):
                gray = np.full((4, 4), ord(name) + 20 * number + len(label), np.uint8)
                Image.fromarray(gray).save(tmp_path / name / label / f"{number}.png")
        config = TuneConfig(epochs=10, batch_size=8, num_independent=5)
        entries.append(TaskEntry(name=name, source=DataSource(path=str(tmp_path / name)), config=config))
    return Manifest(backbone="fake", store=None, tasks=tuple(entries))


def make_clock(cpu_share: float) -> Callable[[], tuple[float, float]]:
    """A clock that goes on by a second each time it is read."""
    seconds = itertools.count()
    return lambda: (float(at := next(seconds)), cpu_share * at)


def slow_down(monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None]) -> None:
    """Have each read of a local file wait; ``before`` gets the name of its task."""
    read = LocalFileSystem.cat_file

    def cat_file(self: LocalFileSystem, path: str, **options: int) -> bytes:
        before(Path(path).parts[-3])
        return bytes(read(self, path, **options))

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)


def test_local_folders_are_read_by_one_thread_while_that_takes_cpu_time(
    six: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: set[threading.Thread] = set()
    slow_down(monkeypatch, lambda task: readers.add(threading.current_thread()))
    plan(six, clock=make_clock(0.9))
    assert readers == {threading.current_thread()}
    plan(six, clock=make_clock(0.1))
    assert len(readers) > 1


def test_local_folders_are_read_side_by_side_once_reads_wait(
    six: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plan(six)
    together = threading.Barrier(4, timeout=PATIENCE_S)
    met: set[str] = set()

    def wait_for_three_others(task: str) -> None:
        if task in NAMES[1:5] and task not in met:
            met.add(task)
            together.wait()

    slow_down(monkeypatch, wait_for_three_others)
    assert plan(six, clock=make_clock(0.1)) == expected
    assert met == set(NAMES[1:5])


def test_order_and_progress_do_not_depend_on_which_task_is_read_first(
    six: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = DataSource(path=str(Path(six.tasks[0].source.path) / "missing"))
    tasks = tuple(replace(task, source=missing) if task.name in "be" else task for task in six.tasks)
    manifest = replace(six, tasks=tasks)
    expected = plan(manifest, keep_going=True)
    # Of those that are read side by side, the last is read first.
    turns = {"c": "d", "d": "f"}
    read = {name: threading.Event() for name in NAMES}

    def take_turns(task: str) -> None:
        if task in turns:
            assert read[turns[task]].wait(PATIENCE_S)
        read[task].set()

    slow_down(monkeypatch, take_turns)
    seen: list[tuple[int, int]] = []
    planned = plan(
        manifest,
        keep_going=True,
        clock=make_clock(0.1),
        on_progress=lambda done, total: seen.append((done, total)),
    )

    assert planned == expected
    assert [task.spec.name for task in planned.tasks] == ["a", "c", "d", "f"]
    assert [task.name for task in planned.refused] == ["b", "e"]
    assert seen == [(number, 6) for number in range(1, 7)]


def test_an_interrupt_waits_for_no_read_that_hangs(six: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    server_is_back = threading.Event()
    slow_down(monkeypatch, lambda task: None if task in "ab" else (server_is_back.wait(), None)[1])

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            plan(six, on_progress=interrupt, clock=make_clock(0.1))
        assert not server_is_back.is_set()
    finally:
        server_is_back.set()
