"""Backbones of the Hugging Face hub, from its client's cache, which needs no network."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from ship.backbone import Backbone, load_backbone
from ship.errors import BackboneError
from tests.factories import write_backbone

NAME = "owner/vit_tiny.of_leaves"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The client's cache, with one repository in it; the client asks nobody else."""
    cache = tmp_path / "hub"
    repository = cache / "models--owner--vit_tiny.of_leaves"
    write_backbone(repository / "snapshots" / ("0" * 40), reg_tokens=2)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repository


def without_the_hub(hub: Path) -> None:
    hub.rename(hub.with_name("elsewhere"))


@pytest.mark.parametrize("prefix", ["hf_hub:", "hf-hub:"])
def test_other_processes_rebuild_it_without_the_hub(hub: Path, prefix: str) -> None:
    backbone = load_backbone(prefix + NAME)
    assert backbone.name == prefix + NAME
    assert backbone.info.architecture == "vit_tiny_patch16_224"
    assert backbone.info.model_args["reg_tokens"] == 2
    without_the_hub(hub)
    again = Backbone.from_arrays(*backbone.to_arrays())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.vit(images), backbone.vit(images))
    assert again.info == backbone.info


def test_what_is_saved_of_it_is_loaded_without_the_hub(hub: Path, tmp_path: Path) -> None:
    backbone = load_backbone(f"hf-hub:{NAME}", image_size=64)
    without_the_hub(hub)
    (tmp_path / "saved").mkdir()
    backbone.save(tmp_path / "saved")
    again = load_backbone(str(tmp_path / "saved"))
    assert (again.info.architecture, again.info.model_args) == (
        backbone.info.architecture,
        backbone.info.model_args,
    )
    assert (again.image_size, again.info.mean) == ((64, 64), (0.4, 0.5, 0.6))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.vit(images), backbone.vit(images))


def test_a_repository_that_is_not_there_is_refused_by_name(hub: Path) -> None:
    with pytest.raises(BackboneError, match="hf-hub:owner/other"):
        load_backbone("hf-hub:owner/other")
