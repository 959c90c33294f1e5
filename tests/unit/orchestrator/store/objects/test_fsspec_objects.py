"""Drivers that write in place, or fail for a while, do a store no harm."""

from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from orchestrator.errors import StoreError
from orchestrator.store.objects.fsspec_objects import FsspecObjects
from orchestrator.store.objects.patience import Patience

BRIEF = Patience(total_s=2.0, first_wait_s=0.001, longest_wait_s=0.002)


class Disk(LocalFileSystem):
    """A file system that writes in place, and misbehaves as it is told."""

    cachable = False

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)
        self.cut_after: int | None = None

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value[: self.cut_after], mode, **kwargs)
        if self.errors:
            raise self.errors.pop(0)

    def rm_file(self, path: str) -> None:
        if self.cut_after is not None:
            raise ConnectionError("gone")
        super().rm_file(path)


def make(folder: Path, disk: Disk, patience: Patience = BRIEF) -> FsspecObjects:
    objects = FsspecObjects(folder.as_uri(), patience=patience)
    vars(objects)["_fs"] = disk
    return objects


@pytest.mark.parametrize("is_new", [True, False])
def test_a_driver_that_writes_in_place_shows_no_half_object(tmp_path: Path, is_new: bool) -> None:
    disk = Disk()
    objects = make(tmp_path, disk)
    if not is_new:
        objects.put("a/k", b"before")
    disk.cut_after = 3

    with pytest.raises(StoreError, match="does not read back"):
        objects.put_new("a/k", b"whole") if is_new else objects.put("a/k", b"whole")

    assert list(objects.list("")) == ([] if is_new else ["a/k"])
    if not is_new:
        assert objects.get("a/k").data == b"before"
    [leftover] = objects.leftovers()
    disk.cut_after = None
    objects.drop_leftover(leftover.key)
    assert list(objects.leftovers()) == []


def test_a_driver_that_writes_in_place_makes_a_new_object_once(tmp_path: Path) -> None:
    objects = make(tmp_path, Disk())

    assert objects.put_new("a/k", b"1")
    assert not objects.put_new("a/k", b"2")

    assert objects.get("a/k").data == b"1"
    assert list(objects.leftovers()) == []


class Http(Exception):  # noqa: N818 - as drivers have them
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("slow"), Http(503), Http(500)])
def test_what_may_pass_is_tried_again(tmp_path: Path, error: Exception) -> None:
    objects = make(tmp_path, Disk(error, error))

    assert objects.put_new("k", b"x")

    assert objects.get("k").data == b"x"


@pytest.mark.parametrize("error", [PermissionError("no"), Http(403), ValueError("odd")])
def test_what_stays_is_not_tried_again(tmp_path: Path, error: Exception) -> None:
    disk = Disk(error, error)

    with pytest.raises(StoreError, match=type(error).__name__):
        make(tmp_path, disk).put("k", b"x")

    assert len(disk.errors) == 1


def test_after_the_limit_the_error_says_how_often(tmp_path: Path) -> None:
    disk = Disk(*[ConnectionRefusedError("refused")] * 1000)
    patience = Patience(total_s=0.05, first_wait_s=0.02, longest_wait_s=0.02)

    with pytest.raises(StoreError, match=r"cannot write file://.*/k: .*refused \(tried \d+ times"):
        make(tmp_path, disk, patience).put("k", b"x")
