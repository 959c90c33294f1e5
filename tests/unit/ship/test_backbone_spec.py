"""What a spec of a backbone names, without loading it."""

import os
from pathlib import Path

import pytest

from ship.backbone import load_backbone
from ship.backbone_spec import BUNDLED, absolute, files_of
from tests.factories import write_backbone


@pytest.mark.parametrize(
    ("spec", "files"),
    [
        ("vit_base_patch16_224.augreg_in21k", []),
        ("hf-hub:owner/name", []),
        ("./vit", ["./vit/config.json", "./vit/model.safetensors"]),
        ("~/vit", [os.path.expanduser(f"~/vit/{name}") for name in ("config.json", "model.safetensors")]),
        ("vit_tiny_patch16_224:weights/a.safetensors", ["weights/a.safetensors"]),
    ],
)
def test_its_files(spec: str, files: list[str]) -> None:
    assert files_of(spec) == tuple(map(Path, files))


def test_the_bundled_one_is_there() -> None:
    assert all(path.is_file() for path in files_of(BUNDLED))


def test_for_a_process_with_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("./vit") == f"{tmp_path}/vit"
    assert absolute("vit_x:a.safetensors") == f"vit_x:{tmp_path}/a.safetensors"
    assert [absolute(name) for name in (BUNDLED, "vit_x.in1k", "hf-hub:a/b")] == [
        BUNDLED,
        "vit_x.in1k",
        "hf-hub:a/b",
    ]


def test_what_is_saved_is_loaded_as_the_same_backbone(tmp_path: Path) -> None:
    write_backbone(tmp_path / "vit", reg_tokens=2)
    folder = tmp_path / "again"
    for backbone in (
        load_backbone(str(tmp_path / "vit")),
        load_backbone("test_vit.r160_in1k", pretrained=False),
    ):
        folder.mkdir(exist_ok=True)
        backbone.save(folder)
        assert load_backbone(str(folder)).fingerprint == backbone.fingerprint
