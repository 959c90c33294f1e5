"""Folders and files for their owner alone, whatever the umask."""

import os
import resource
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.private_files import (
    make_folder_like,
    make_private_folder,
    make_private_tree,
    open_like_folder,
    open_private,
    replace_like_folder,
    replace_private,
)
from orchestrator.registry.spool import Spool
from orchestrator.serve.process_log import append_to
from orchestrator.store.objects.local import LocalObjects
from orchestrator.train.run.folder import hold_run


@pytest.fixture(params=[0o000, 0o022, 0o077], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_folder_that_is_made_is_private(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_one_that_is_there_is_closed_unless_all_share_it(tmp_path: Path) -> None:
    for name, found, expected in (("home", 0o755, 0o700), ("tmp", 0o1777, 0o1777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(found)
        make_private_folder(tmp_path / name)
        assert mode(tmp_path / name) == expected


def test_a_tree_is_closed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o644)
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "file").write_text("x")
    (tmp_path / "tree" / "link").symlink_to(outside)
    make_private_tree(tmp_path / "tree")
    assert (mode(tmp_path / "tree" / "a"), mode(tmp_path / "tree" / "a" / "file")) == (0o700, 0o600)
    assert mode(outside) == 0o644


def test_threads_that_replace_one_file_leave_one_of_theirs_whole(tmp_path: Path) -> None:
    place, written = tmp_path / "file", [bytes([number]) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(len(written)) as threads:
        for _ in range(10):
            list(threads.map(lambda content: replace_private(place, content), written))
            assert place.read_bytes() in written
    assert list(tmp_path.iterdir()) == [place]


def test_a_file_that_cannot_be_replaced_stays_and_no_copy_is_left(tmp_path: Path) -> None:
    place = tmp_path / "file"
    replace_private(place, b"old")
    assert (place.read_bytes(), mode(place)) == (b"old", 0o600)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk: the write ends half-way. Python ignores the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_private(place, b"z" * (1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_private(tmp_path / "folder", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert place.read_bytes() == b"old"


def test_a_file_of_a_shared_folder_is_replaced_by_one_that_is_shared(tmp_path: Path, umask: int) -> None:
    tmp_path.chmod(0o770)
    place = tmp_path / "file"
    place.write_bytes(b"old")
    replace_like_folder(place, b"new")
    assert (place.read_bytes(), mode(place)) == (b"new", 0o660 & ~umask)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_are_private_or_as_open_as_their_folder(tmp_path: Path, umask: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    for opener, folder, expected in (
        (open_private, shared, 0o600),
        (open_like_folder, shared, 0o660 & ~umask),
        (open_like_folder, tmp_path, 0o600),
    ):
        path = folder / f"{opener.__name__}.txt"
        with open(path, "w", opener=opener):
            pass
        assert mode(path) == expected


def test_folders_of_a_shared_one_stay_shared(tmp_path: Path, umask: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    make_folder_like(shared, shared / "a" / "b")
    assert mode(shared / "a") == mode(shared / "a" / "b") == 0o770 & ~umask
    make_folder_like(tmp_path / "own", tmp_path / "own" / "a")
    assert mode(tmp_path / "own") == mode(tmp_path / "own" / "a") == 0o700


def test_all_that_is_written_at_home_is_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    with hold_run(home, "run", "lines.yaml"):
        Spool(home / "spool").set_aside(["line"], "cause")
        LocalObjects(home / "store").put("tokens.json", b"{}")
        LocalObjects(home / "store").put_new("artifacts/a/b", b"{}")
        append_to(str(home / "serve.log"), "tests.private_files", "%(message)s", 30)
    found = {str(path): mode(path) for path in (home, *home.rglob("*"))}
    assert len(found) > 10
    assert {path for path, bits in found.items() if bits & 0o077} == set()
