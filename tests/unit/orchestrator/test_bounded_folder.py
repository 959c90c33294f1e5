import os
from pathlib import Path

import pytest

from orchestrator.bounded_folder import BoundedFolder


def keep(folder: BoundedFolder, name: str, size: int = 10) -> None:
    folder.keep(name, size, lambda path: path.write_bytes(bytes(size)) and None)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("look_every", [1, 3, 100])
def test_the_limit_holds_however_seldom_it_looks(tmp_path: Path, look_every: int) -> None:
    folder = BoundedFolder(tmp_path, 45, look_every)

    for number in range(20):
        keep(folder, str(number))
        os.utime(tmp_path / str(number), (number, number))
        assert len(names(tmp_path)) == min(4, number + 1)

    assert names(tmp_path) == {"16", "17", "18", "19"}


def test_what_other_processes_keep_is_seen_at_the_next_look(tmp_path: Path) -> None:
    mine, theirs = BoundedFolder(tmp_path, 45, 3), BoundedFolder(tmp_path, 1000)
    keep(mine, "mine-1")
    for number in range(4):
        keep(theirs, f"theirs-{number}")
    keep(mine, "mine-2")
    assert len(names(tmp_path)) == 6

    for number in (3, 4):
        keep(mine, f"mine-{number}")

    assert len(names(tmp_path)) == 4


def test_the_leftovers_of_a_killed_writer_go_first_when_they_are_oldest(tmp_path: Path) -> None:
    (tmp_path / ".a.12345678").write_bytes(bytes(30))
    os.utime(tmp_path / ".a.12345678", (1, 1))

    keep(BoundedFolder(tmp_path, 35), "b")

    assert names(tmp_path) == {"b"}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        BoundedFolder(tmp_path, 100).keep("a", 10, write)

    assert names(tmp_path) == set()


@pytest.mark.parametrize("look_every", [1, 1000])
def test_when_it_is_full_a_tenth_goes(tmp_path: Path, look_every: int) -> None:
    folder = BoundedFolder(tmp_path, 1000, look_every)
    for number in range(100):
        keep(folder, str(number))
        os.utime(tmp_path / str(number), (number, number))

    keep(folder, "100")

    assert names(tmp_path) == {str(number) for number in range(11, 101)}


def test_a_full_folder_is_not_gone_through_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or scandir(path))
    folder = BoundedFolder(tmp_path, 1000, 1000)

    for number in range(500):
        keep(folder, str(number))

    # The first one, and from a hundred files on each time that a tenth has come again.
    assert len(looks) == 1 + 37
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000


def test_a_file_larger_than_what_is_left_when_it_is_full_takes_all(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, 100)
    keep(folder, "a")

    keep(folder, "b", 95)

    assert names(tmp_path) == {"b"}
