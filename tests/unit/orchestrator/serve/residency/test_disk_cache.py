"""Artifacts are fetched once, checked whenever they are read, and a disk that fails costs time alone."""

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.serve.options import EngineOptions
from orchestrator.serve.residency.disk_cache import DiskCache, with_disk_cache
from orchestrator.store.documents.rule import StoredRule
from tests.unit.orchestrator.store.factory import digest_of, make_artifact

LARGE = 1 << 30
DAMAGES = {
    "bit flip": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "truncated": lambda content: content[:-7],
    "longer": lambda content: content + b"x",
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "no header": lambda content: content.replace(b"\n", b" "),
    "deep header": lambda content: b"[" * 10_000 + b"\n",
    "sizes": lambda content: content.replace(b'"README.md": ', b'"README.md": -', 1),
    "pickle": lambda content: b"\x80\x04\x95" + content,
}


RULE = b'{"a": "rule", whatever it says}'


class Source:
    """A store of a few artifacts that counts how often it is asked."""

    def __init__(self, *tasks: str) -> None:
        made = [make_artifact(task) for task in tasks or ("bolts",)]
        self.files = {digest_of(files): files for files in made}
        self.digests = list(self.files)
        self.asked: Counter[str] = Counter()

    def fetch(self, digest: str) -> dict[str, bytes]:
        self.asked[digest] += 1
        if digest not in self.files:
            raise StoreError("no such object")
        return self.files[digest]

    def fetch_rule(self, digest: str) -> bytes:
        self.asked[digest] += 1
        if digest != StoredRule.digest_of(RULE):
            raise StoreError("no such object")
        return RULE


def test_an_artifact_is_fetched_once_and_outlives_the_process_and_the_store(tmp_path: Path):
    source = Source()
    [digest] = source.digests
    assert DiskCache(source, tmp_path / "cache", LARGE).fetch(digest) == source.files[digest]
    kept = DiskCache(Source("nuts"), tmp_path / "cache", LARGE).fetch(digest)
    assert kept == source.files[digest]
    assert source.asked == {digest: 1}
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_an_artifact_is_kept_without_its_held_out_answers(tmp_path: Path):
    source = Source()
    files = make_artifact("nuts", held_out=b"{}")
    digest = digest_of(files)
    del files["held_out.json"]
    source.files[digest] = files
    assert [DiskCache(source, tmp_path, LARGE).fetch(digest) for _ in range(2)] == [files, files]
    assert source.asked == {digest: 1}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_fetched_again(tmp_path: Path, name: str):
    source = Source()
    [digest] = source.digests
    cache = DiskCache(source, tmp_path, LARGE)
    cache.fetch(digest)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[name](whole))
    for _ in range(2):
        assert cache.fetch(digest) == source.files[digest]
    assert source.asked == {digest: 2}
    assert path.read_bytes() == whole


def test_an_entry_of_another_artifact_is_not_taken(tmp_path: Path):
    source = Source("bolts", "nuts")
    one, other = source.digests
    cache = DiskCache(source, tmp_path, LARGE)
    cache.fetch(one)
    [path] = tmp_path.iterdir()
    path.rename(path.with_name(path.name.replace(one, other)))
    assert cache.fetch(other) == source.files[other]
    assert source.asked == {one: 1, other: 1}


def test_what_was_used_least_recently_makes_room(tmp_path: Path):
    source = Source("bolts", "nuts", "gears")
    first, second, third = source.digests
    DiskCache(source, tmp_path, LARGE).fetch(first)
    [path] = tmp_path.iterdir()
    size = path.stat().st_size
    cache = DiskCache(source, tmp_path, int(2.5 * size))
    cache.fetch(second)
    for kept in tmp_path.iterdir():
        os.utime(kept, (1000.0, 1000.0))
    cache.fetch(first)
    cache.fetch(third)
    assert sum(kept.stat().st_size for kept in tmp_path.iterdir()) <= 2.5 * size
    for digest in (first, third, second):
        cache.fetch(digest)
    assert source.asked == {first: 1, third: 1, second: 2}


def test_a_limit_below_an_artifact_keeps_none(tmp_path: Path):
    source = Source()
    [digest] = source.digests
    cache = DiskCache(source, tmp_path / "cache", 100)
    assert cache.fetch(digest) == cache.fetch(digest)
    assert source.asked == {digest: 2}
    assert not (tmp_path / "cache").exists()


def test_an_artifact_that_the_source_has_not_is_its_error(tmp_path: Path):
    with pytest.raises(StoreError, match="no such object"):
        DiskCache(Source(), tmp_path, LARGE).fetch("0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    source = Source("bolts", "nuts")
    cache = DiskCache(source, tmp_path / "file" / "cache", LARGE)
    for digest in source.digests * 2:
        assert cache.fetch(digest) == source.files[digest]
    [record] = caplog.records
    assert "serving goes on without" in record.getMessage()


def test_a_full_disk_is_told_once_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def write(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    source = Source("bolts", "nuts")
    monkeypatch.setattr(Path, "write_bytes", write)
    cache = DiskCache(source, tmp_path, LARGE)
    monkeypatch.setattr(Path, "write_bytes", write)
    for digest in source.digests * 2:
        assert cache.fetch(digest) == source.files[digest]
    [record] = caplog.records
    assert "No space left" in record.getMessage()
    assert list(tmp_path.iterdir()) == []


def test_the_options_say_where(tmp_path: Path):
    source = Source()
    assert with_disk_cache(source, EngineOptions()) is source
    assert with_disk_cache(source, EngineOptions(cache=str(tmp_path), cache_bytes=0)) is source
    cache = with_disk_cache(source, EngineOptions(cache=str(tmp_path), cache_bytes=LARGE))
    cache.fetch(source.digests[0])
    assert [path.parent for path in tmp_path.glob("*/*")] == [tmp_path / "prompts"]


def test_a_rule_is_fetched_once_and_outlives_the_process_and_the_store(tmp_path: Path) -> None:
    source, digest = Source(), StoredRule.digest_of(RULE)
    assert DiskCache(source, tmp_path, LARGE).fetch_rule(digest) == RULE
    down = Source()
    assert DiskCache(down, tmp_path, LARGE).fetch_rule(digest) == RULE
    assert (source.asked, down.asked) == ({digest: 1}, {})


@pytest.mark.parametrize("content", [b"", RULE[:-1], b"x" * len(RULE), RULE * 2])
def test_a_damaged_rule_is_fetched_again(tmp_path: Path, content: bytes) -> None:
    source, digest = Source(), StoredRule.digest_of(RULE)
    cache = DiskCache(source, tmp_path, LARGE)
    cache.fetch_rule(digest)
    (tmp_path / f"{digest}.rule").write_bytes(content)
    assert cache.fetch_rule(digest) == RULE
    assert cache.fetch_rule(digest) == RULE
    assert source.asked == {digest: 2}


def test_a_rule_that_is_nowhere_is_refused_as_by_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such object"):
        DiskCache(Source(), tmp_path, LARGE).fetch_rule("0" * 64)
