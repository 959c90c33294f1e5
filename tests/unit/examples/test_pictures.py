"""Data sets are read from a folder or an archive alike; a missing one says what to do."""

import tarfile
from pathlib import Path

import pytest

from examples.industrial.pictures import read_archive


def write_pictures(folder: Path) -> None:
    for kind in ("under", "normal"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "frame0.jpg").write_bytes(kind.encode())


def test_an_archive_and_its_folder_hold_the_same(tmp_path: Path) -> None:
    write_pictures(tmp_path / "unpacked" / "extrusion_images")
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "extrusion.tar", "w") as tar:
        tar.add(tmp_path / "unpacked" / "extrusion_images", "extrusion_images")
    found = read_archive("extrusion", tmp_path / "unpacked")
    assert [(each.name, each.kind, each.content) for each in found] == [
        ("normal/frame0.jpg", "normal", b"normal"),
        ("under/frame0.jpg", "under", b"under"),
    ]
    assert read_archive("extrusion", tmp_path / "packed") == found


@pytest.mark.parametrize("is_given", [True, False])
def test_a_missing_archive_says_where_it_comes_from(is_given: bool, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"microstructure\.tar.*github\.com/fmegahed/qe_genai"):
        read_archive("microstructure", tmp_path if is_given else None)
