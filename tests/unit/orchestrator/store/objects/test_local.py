import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.errors import StoreError, StoreFull
from orchestrator.store.objects.local import LocalObjects

# Dies between the two halves of a write, as a killed process does.
DIE_WHILE_WRITING = """
import os, sys
from pathlib import Path
from orchestrator.store.objects.local import LocalObjects
os.fsync = lambda descriptor: os._exit(9)
LocalObjects(Path(sys.argv[1])).put_new("a/k", b"half")
"""
COUNT_UP = """
import sys
from pathlib import Path
from orchestrator.errors import ObjectConflict
from orchestrator.store.objects.local import LocalObjects
store = LocalObjects(Path(sys.argv[1]))
done = 0
while done < 25:
    now = store.get("n")
    try:
        store.put("n", b"%d" % (int(now.data) + 1), if_match=now.etag)
        done += 1
    except ObjectConflict:
        pass
"""


def test_a_writer_that_is_killed_leaves_nothing_to_be_seen(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(tmp_path)], check=False)
    objects = LocalObjects(tmp_path)

    assert done.returncode == 9
    assert len(list((tmp_path / "a").iterdir())) == 1
    assert list(objects.list("")) == []
    assert objects.put_new("a/k", b"whole")
    assert objects.get("a/k").data == b"whole"


def test_of_many_writers_of_a_new_object_one_wins(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)

    with ThreadPoolExecutor(8) as writers:
        won = list(writers.map(lambda n: objects.put_new("k", b"%d" % n), range(8)))

    assert won.count(True) == 1
    assert objects.get("k").data == b"%d" % won.index(True)


def test_no_guarded_write_of_another_process_is_lost(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    objects.put("n", b"0")

    counters = [subprocess.Popen([sys.executable, "-c", COUNT_UP, str(tmp_path)]) for _ in range(3)]

    assert [counter.wait() for counter in counters] == [0, 0, 0]
    assert objects.get("n").data == b"75"


@pytest.mark.parametrize("write", ["put", "put_new"])
def test_a_full_disk_leaves_nothing_behind(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(StoreFull, match="disk is full") as caught:
        getattr(LocalObjects(tmp_path), write)("a/k", b"data")

    assert f"{tmp_path.as_uri()}/a/k" in str(caught.value)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_file_system_without_hard_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(StoreError, match="hard links"):
        LocalObjects(tmp_path).put_new("k", b"data")


def test_foreign_files_are_not_objects(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "k").write_bytes(b"")
    (tmp_path / "has space").write_bytes(b"")
    LocalObjects(tmp_path).put("k", b"")

    assert list(LocalObjects(tmp_path).list("")) == ["k"]


def test_the_folder_is_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = LocalObjects(Path("store"))
    monkeypatch.chdir("/")

    objects.put("k", b"x")

    assert (tmp_path / "store" / "k").read_bytes() == b"x"
