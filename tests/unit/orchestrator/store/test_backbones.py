"""Backbones in the store: found by their fingerprint, and never another one under it."""

import json
from pathlib import Path

import pytest
import torch

from orchestrator.errors import StoreError
from orchestrator.serve.backbone_source import BackboneSource
from orchestrator.serve.options import EngineOptions
from orchestrator.store.backbones import list_backbones, load_backbone_of, push_backbone, spec_of
from orchestrator.store.objects.local import LocalObjects
from ship.backbone import Backbone, load_backbone
from tests.console import run_ship
from tests.factories import write_backbone


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    write_backbone(tmp_path / "vit")
    return load_backbone(str(tmp_path / "vit"))


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path / "store")


def test_what_is_pushed_is_loaded_by_its_fingerprint(
    objects: LocalObjects, backbone: Backbone, tmp_path: Path
) -> None:
    assert [push_backbone(objects, backbone) for _ in range(2)] == [True, False]
    assert list(list_backbones(objects)) == [backbone.fingerprint]
    for digits in (8, 16, 64):
        found = load_backbone_of(f"store:{backbone.fingerprint[:digits]}", str(tmp_path / "store"))
        assert found.fingerprint == backbone.fingerprint
    larger = load_backbone_of(spec_of(backbone.fingerprint), str(tmp_path / "store"), image_size=64)
    assert larger.fingerprint == load_backbone(str(tmp_path / "vit"), image_size=64).fingerprint


def test_one_that_is_not_there_is_told_with_those_that_are(
    objects: LocalObjects, backbone: Backbone, tmp_path: Path
) -> None:
    push_backbone(objects, backbone)
    # Of a push that was broken off.
    objects.put(f"backbones/{'a' * 64}/model.safetensors", b"half")
    for digits in ("f" * 16, backbone.fingerprint[:7], "", "a" * 64):
        with pytest.raises(StoreError, match=f"0 backbones .* of 1 \\({spec_of(backbone.fingerprint)}"):
            load_backbone_of(f"store:{digits}", str(tmp_path / "store"))


def test_another_one_under_its_fingerprint_is_refused(
    objects: LocalObjects, backbone: Backbone, tmp_path: Path
) -> None:
    push_backbone(objects, backbone)
    write_backbone(tmp_path / "other", seed=1)
    weights = (tmp_path / "other" / "model.safetensors").read_bytes()
    objects.put(f"backbones/{backbone.fingerprint}/model.safetensors", weights)
    with pytest.raises(StoreError, match=r"is backbone .*push it again"):
        load_backbone_of(spec_of(backbone.fingerprint), str(tmp_path / "store"))


def test_an_engine_that_has_it_needs_no_store(
    objects: LocalObjects, backbone: Backbone, tmp_path: Path
) -> None:
    push_backbone(objects, backbone)
    options = EngineOptions(cache=str(tmp_path / "cache"), cache_bytes=1 << 30)
    source = BackboneSource.of(spec_of(backbone.fingerprint), None, options, str(tmp_path / "store"))
    source.load()
    (tmp_path / "store").rename(tmp_path / "away")
    found = source.load()
    images = torch.zeros(1, 3, 32, 32)
    assert found.fingerprint == backbone.fingerprint
    assert torch.equal(found.vit(images), backbone.vit(images))


def test_ship_backbone_says_what_to_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backbone: Backbone, tmp_path: Path
) -> None:
    ship = ("--home", str(tmp_path / "home"), "backbone")
    assert run_ship(monkeypatch, *ship, "push", str(tmp_path / "vit"), "--json") == 0
    pushed = json.loads(capsys.readouterr().out)
    assert pushed == {
        "spec": spec_of(backbone.fingerprint),
        "fingerprint": backbone.fingerprint,
        "is_new": True,
    }
    assert run_ship(monkeypatch, *ship, "ls") == 0
    assert capsys.readouterr().out.strip() == pushed["spec"]
