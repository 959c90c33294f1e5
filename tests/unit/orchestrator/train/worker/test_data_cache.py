import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.train.worker.data_cache import DataCache
from ship.data import Split, TaskData
from ship.errors import DataError
from ship.settings.view import View
from tests.unit.ship.factory import make_data

LARGE = 1 << 30


class Source:
    """Gives data, and counts how often it was asked."""

    def __init__(self, data: TaskData) -> None:
        self.data, self.num_reads = data, 0

    def __call__(self) -> TaskData:
        self.num_reads += 1
        return self.data


def load(cache: DataCache, read: Callable[[], TaskData], fingerprint: str, size: int = 32) -> TaskData:
    return cache.load(fingerprint, (size, size), "bicubic", read)


def assert_same(found: Split | None, expected: Split | None) -> None:
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert torch.equal(found.images_B3HW, expected.images_B3HW)
        assert torch.equal(found.labels_B, expected.labels_B)
        assert found.paths == expected.paths
        assert found.contents == expected.contents


@pytest.mark.parametrize("num_val", [0, 4])
def test_data_is_read_once_and_comes_back_as_it_was(tmp_path: Path, num_val: int) -> None:
    source = Source(replace(make_data(num_val=num_val, seed=1), leaked=("test/a.png",)))
    key = source.data.fingerprint
    cache = DataCache(tmp_path / "cache", LARGE)
    load(cache, source, key)
    found = load(DataCache(tmp_path / "cache", LARGE), source, key)
    assert source.num_reads == 1
    assert (found.labels, found.fingerprint, found.leaked) == (source.data.labels, key, ("test/a.png",))
    for split in ("train", "val", "test"):
        assert_same(getattr(found, split), getattr(source.data, split))
    load(cache, source, key, size=48)
    assert source.num_reads == 2, "another size is other data"
    cache.load(key, (32, 32), "bicubic", source, allow_duplicates=True)
    assert source.num_reads == 3, "other images may be held out"
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_what_tells_held_out_images_apart_is_kept(tmp_path: Path) -> None:
    plain = make_data(num_val=4, seed=1)
    assert plain.test is not None
    contents = tuple(f"{number:064x}" for number in range(len(plain.test)))
    source = Source(replace(plain, test=replace(plain.test, contents=contents)))
    for _ in range(2):
        found = load(DataCache(tmp_path, LARGE), source, plain.fingerprint)
        assert_same(found.test, source.data.test)
        assert_same(found.train, plain.train)
    assert source.num_reads == 1


def test_data_that_is_not_what_was_planned_is_not_kept(tmp_path: Path) -> None:
    source = Source(make_data(seed=1))
    cache = DataCache(tmp_path, LARGE)
    for _ in range(2):
        assert load(cache, source, "f" * 64).fingerprint == source.data.fingerprint
    assert source.num_reads == 2
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_least_recently_makes_room(tmp_path: Path) -> None:
    sources = [Source(make_data(seed=seed)) for seed in range(4)]
    load(DataCache(tmp_path, LARGE), sources[0], sources[0].data.fingerprint)
    [first] = tmp_path.iterdir()
    cache = DataCache(tmp_path, int(2.5 * first.stat().st_size))
    load(cache, sources[1], sources[1].data.fingerprint)
    for age_s, path in enumerate(sorted(tmp_path.iterdir(), key=lambda path: path == first)):
        os.utime(path, (1000.0 - age_s, 1000.0 - age_s))
    load(cache, sources[0], sources[0].data.fingerprint)
    load(cache, sources[2], sources[2].data.fingerprint)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2.5 * first.stat().st_size
    for source in (sources[0], sources[2], sources[1]):
        load(cache, source, source.data.fingerprint)
    assert [source.num_reads for source in sources[:3]] == [1, 2, 1]


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, None])
def test_a_damaged_file_is_read_from_its_source_again(tmp_path: Path, damage: bytes | None) -> None:
    source = Source(make_data(seed=1))
    cache = DataCache(tmp_path, LARGE)
    load(cache, source, source.data.fingerprint)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7] if damage is None else damage)
    for _ in range(2):
        assert_same(load(cache, source, source.data.fingerprint).train, source.data.train)
    assert source.num_reads == 2


def test_a_disk_that_fails_and_a_limit_of_zero_only_cost_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = Source(make_data(seed=1))
    for cache in (DataCache(tmp_path / "file" / "cache", LARGE), DataCache(tmp_path / "none", 0)):
        load(cache, source, source.data.fingerprint)
    assert source.num_reads == 2
    assert not (tmp_path / "none").exists()


def test_an_error_of_the_source_is_passed_on(tmp_path: Path) -> None:
    def read() -> TaskData:
        raise DataError("a.png is corrupt")

    with pytest.raises(DataError, match=r"a\.png is corrupt"):
        load(DataCache(tmp_path, LARGE), read, "0" * 64)


def test_a_folder_beside_the_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "other").write_bytes(bytes(1000))
    source = Source(make_data(seed=1))
    load(DataCache(tmp_path, LARGE), source, source.data.fingerprint)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    second = Source(make_data(seed=2))
    load(DataCache(tmp_path, size + 10), second, second.data.fingerprint)
    assert [path.name for path in tmp_path.glob("*/*")] == ["other"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_another_view_is_other_data_and_comes_back_with_it(tmp_path: Path) -> None:
    data = make_data(seed=1)
    view = View(tiles="auto", fit="pad")
    settled = replace(data, view=View(fit="pad"))
    cache = DataCache(tmp_path / "cache", LARGE)
    key = data.fingerprint
    plain, source = Source(data), Source(settled)
    cache.load(key, (32, 32), "bicubic", plain)
    cache.load(key, (32, 32), "bicubic", source, view)
    assert (plain.num_reads, source.num_reads) == (1, 1)
    assert cache.load(key, (32, 32), "bicubic", source, view).view == View(fit="pad")
    assert cache.load(key, (32, 32), "bicubic", plain).view == View()
    assert (plain.num_reads, source.num_reads) == (1, 1)
