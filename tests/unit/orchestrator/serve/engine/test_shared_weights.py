"""Weights of a backbone on this machine's disk: mapped and shared, never wrong, and never in the way."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from orchestrator.serve.backbone_source import BackboneSource
from orchestrator.serve.engine.shared_weights import WeightsCache
from orchestrator.serve.options import EngineOptions
from ship.backbone import Backbone, load_backbone
from ship.errors import BackboneError
from tests.factories import write_backbone

LIMIT_BYTES = 1 << 30


@pytest.fixture
def spec(tmp_path: Path) -> str:
    write_backbone(tmp_path / "vit")
    return str(tmp_path / "vit")


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "cache", LIMIT_BYTES)


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.safetensors"))


def same(one: Backbone, other: Backbone) -> bool:
    images = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    return one.info == other.info and torch.equal(one.vit(images), other.vit(images))


def mapped_bytes(path: Path) -> tuple[int, int]:
    """Bytes of a file that this process has in memory, and how many of them are copies of its own."""
    parts = [part for part in psutil.Process().memory_maps(grouped=False) if part.path == str(path)]
    return sum(part.rss for part in parts), sum(part.anonymous for part in parts)


def test_what_comes_from_the_cache_is_what_was_loaded(cache: WeightsCache, spec: str, tmp_path: Path) -> None:
    expected = load_backbone(spec)
    for _ in range(2):
        assert same(cache.load(spec), expected)
    (file,) = kept(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_its_pages_are_those_of_the_file_and_no_pass_takes_a_copy(
    cache: WeightsCache, spec: str, tmp_path: Path
) -> None:
    backbone = cache.load(spec)
    (file,) = kept(tmp_path)
    before = file.read_bytes()
    images = torch.zeros(2, 3, 32, 32)
    for _ in range(3):
        backbone.vit(images)
    num_bytes, num_copied = mapped_bytes(file)
    assert num_bytes >= sum(value.nbytes for value in backbone.vit.state_dict().values())
    assert num_copied == 0
    assert file.read_bytes() == before


def test_a_weight_that_is_written_to_changes_for_no_other(
    cache: WeightsCache, spec: str, tmp_path: Path
) -> None:
    careless, other = cache.load(spec), cache.load(spec)
    (file,) = kept(tmp_path)
    before = file.read_bytes()
    careless.vit.cls_token.data.fill_(7.0)
    assert float(other.vit.cls_token.abs().max()) < 7.0
    assert file.read_bytes() == before


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def swap_header(file: Path) -> None:
    content = file.read_bytes()
    assert b'\\"depth\\": 4' in content
    file.write_bytes(content.replace(b'\\"depth\\": 4', b'\\"depth\\": 3'))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "half written": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: file.write_bytes(b""),
    "no safetensors": lambda file: file.write_bytes(b"x" * 1000),
    "another header": swap_header,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_and_made_again(
    cache: WeightsCache, spec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache.load(spec)
    (file,) = kept(tmp_path)
    # Another file, as a disk that failed has: none that is mapped here is cut off under a weight.
    shutil.copy(file, tmp_path / "copy")
    file.unlink()
    shutil.move(tmp_path / "copy", file)
    DAMAGES[damage](file)
    assert same(cache.load(spec), load_backbone(spec))
    assert "is damaged" in caplog.text
    caplog.clear()
    assert same(cache.load(spec), load_backbone(spec))
    assert not caplog.text


def test_a_folder_that_was_changed_is_another_backbone(
    cache: WeightsCache, spec: str, tmp_path: Path
) -> None:
    before = cache.load(spec)
    shutil.rmtree(spec)
    write_backbone(Path(spec), seed=1)
    after = cache.load(spec)
    assert after.fingerprint != before.fingerprint
    assert same(after, load_backbone(spec))


def test_another_image_size_has_a_file_of_its_own(cache: WeightsCache, spec: str, tmp_path: Path) -> None:
    native, larger = cache.load(spec), cache.load(spec, image_size=64)
    again = cache.load(spec, image_size=64)
    assert (native.image_size, larger.image_size) == ((32, 32), (64, 64))
    assert again.fingerprint == larger.fingerprint == load_backbone(spec, image_size=64).fingerprint
    assert torch.equal(again.vit.pos_embed, larger.vit.pos_embed)
    assert len(kept(tmp_path)) == 2


LOAD = """
import sys
from orchestrator.serve.engine.shared_weights import WeightsCache
from pathlib import Path
print("started", flush=True)
sys.stdin.readline()
print(WeightsCache(Path(sys.argv[1]), 1 << 30).load(sys.argv[2]).fingerprint)
"""


def test_engines_that_start_at_once_get_the_same(tmp_path: Path, spec: str) -> None:
    command = [sys.executable, "-c", LOAD, str(tmp_path / "cache"), spec]
    engines = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [engine.stdout.readline() for engine in engines] == ["started\n"] * 2
    for engine in engines:
        engine.stdin.write("go\n")
        engine.stdin.flush()
    found = {engine.communicate()[0].strip() for engine in engines}
    assert found == {load_backbone(spec).fingerprint}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [kept(tmp_path)[0].name]


def test_leftovers_of_a_writer_that_was_killed_are_not_read(
    cache: WeightsCache, spec: str, tmp_path: Path
) -> None:
    cache.load(spec)
    (file,) = kept(tmp_path)
    file.rename(file.with_name(f".{file.name}.0123abcd"))
    assert same(cache.load(spec), load_backbone(spec))


def test_a_cache_that_cannot_be_written_costs_memory_alone(
    tmp_path: Path, spec: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert same(WeightsCache(tmp_path / "cache", LIMIT_BYTES).load(spec), load_backbone(spec))
    assert "are not shared" in caplog.text


@pytest.mark.parametrize("limit_bytes", [0, 1000])
def test_what_is_larger_than_the_cache_is_served_without_it(
    tmp_path: Path, spec: str, limit_bytes: int
) -> None:
    options = EngineOptions(cache=str(tmp_path), cache_bytes=limit_bytes)
    assert same(BackboneSource.of(spec, None, options).load(), load_backbone(spec))
    assert not list(tmp_path.glob("backbones/*.safetensors"))


def test_a_backbone_that_cannot_be_loaded_is_an_error_as_ever(cache: WeightsCache, tmp_path: Path) -> None:
    for spec in (str(tmp_path / "nothing"), "no_such_model"):
        with pytest.raises(BackboneError):
            cache.load(spec)
