import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ship.backbone import Backbone, load_backbone
from ship.errors import BackboneError, ConfigError
from ship.method.model import forward
from ship.method.prompts import Prompt
from ship.settings.config import TuneConfig
from ship.tuning.preparation import check_fit
from ship.vit import timm
from tests.factories import write_backbone
from tests.unit.ship.factory import make_data

SUPPORTED = {
    "plain": {},
    "LayerScale": {"init_values": 0.3},
    "register tokens": {"reg_tokens": 4, "no_embed_class": True},
    "qk-norm": {"qk_norm": True},
    "pre-norm and no bias": {"pre_norm": True, "qkv_bias": False},
    "dynamic size": {"dynamic_img_size": True},
}


@pytest.mark.parametrize("args", SUPPORTED.values(), ids=SUPPORTED.keys())
def test_without_prompts_logits_are_timms_own(tmp_path: Path, args: dict) -> None:
    vit = write_backbone(tmp_path / "vit", **args)
    backbone = load_backbone(str(tmp_path / "vit"))
    config = TuneConfig(num_independent=0, num_shared=0, num_attribute=0, start="published")
    prompt = Prompt(config, level_starts=[0, 2], depth=4, prototypes_RD=torch.zeros(1, 32), num_classes=5)
    prompt.initialise(torch.Generator().manual_seed(1))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = prompt.head(vit(images))
        found = forward(backbone, prompt, images).logits_BC
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("args", SUPPORTED.values(), ids=SUPPORTED.keys())
def test_closed_gates_give_the_bare_network(tmp_path: Path, args: dict) -> None:
    vit = write_backbone(tmp_path / "vit", **args)
    backbone = load_backbone(str(tmp_path / "vit"))
    config = TuneConfig(start="gated")
    prototypes = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    prompt = Prompt(config, level_starts=[0, 1, 3], depth=4, prototypes_RD=prototypes, num_classes=5)
    prompt.initialise(torch.Generator().manual_seed(1))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = prompt.head(vit(images))
        found = forward(backbone, prompt, images).logits_BC
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("test_vit2", "no class token"),
        ("test_vit3", "pools its tokens by 'map'"),
        ("deit_tiny_distilled_patch16_224", "VisionTransformerDistilled"),
        ("beit_base_patch16_224", "Beit"),
        ("resnet18", "ResNet"),
        ("vit_small_patch16_36x1_224x", "no such timm model"),
        ("./nowhere", "config.json"),
    ],
)
def test_what_cannot_be_done_exactly_is_refused_with_the_reason(name: str, what: str) -> None:
    with pytest.raises(BackboneError, match=what):
        load_backbone(name, pretrained=False)


@pytest.mark.parametrize(
    ("args", "what"),
    [
        ({"scale_attn_norm": True}, "scale_norm"),
        ({"class_token": False}, "class token"),
        ({"fc_norm": True}, "final norm is in its head"),
        ({"in_chans": 1}, "images of 1 channels"),
    ],
)
def test_variants_of_a_block_are_refused(tmp_path: Path, args: dict, what: str) -> None:
    if "class_token" in args:
        args = {**args, "global_pool": "avg"}
    write_backbone(tmp_path / "vit", **args)
    with pytest.raises(BackboneError, match=what):
        load_backbone(str(tmp_path / "vit"))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    write_backbone(tmp_path / "vit")
    file = tmp_path / "vit" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=r"model\.safetensors"):
        load_backbone(str(tmp_path / "vit"))


def test_fingerprint_follows_weights_and_preprocessing_and_not_the_place(tmp_path: Path) -> None:
    write_backbone(tmp_path / "a")
    write_backbone(tmp_path / "b")
    write_backbone(tmp_path / "c", seed=1)
    write_backbone(tmp_path / "d")
    config = tmp_path / "d" / "config.json"
    config.write_text(config.read_text().replace("0.6", "0.61"))
    a, b, c, d = (load_backbone(str(tmp_path / name)).fingerprint for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_the_name_has_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_backbone(tmp_path / "plant" / "vit")
    monkeypatch.chdir(tmp_path / "plant" / "vit")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "plant" / "current").symlink_to("vit")
    for spec, name in (
        (f"{tmp_path}/plant/vit/", "vit"),
        ("~/plant/vit", "vit"),
        (".", "vit"),
        ("../vit/../vit/.", "vit"),
        ("../current", "current"),
    ):
        assert load_backbone(spec).name == name

    vit = timm.create_model("test_vit", num_classes=0)
    save_file(vit.state_dict(), tmp_path / "weights.safetensors")
    assert load_backbone(f"test_vit:{tmp_path}/weights.safetensors").name == "test_vit:weights.safetensors"
    assert load_backbone("test_vit.r160_in1k", pretrained=False).name == "test_vit.r160_in1k"


def test_arrays_rebuild_the_same_backbone_without_a_copy(tmp_path: Path) -> None:
    write_backbone(tmp_path / "vit", reg_tokens=2)
    backbone = load_backbone(str(tmp_path / "vit"))
    header, arrays = backbone.to_arrays()
    for array in arrays.values():
        array.setflags(write=False)  # as Ray's object store hands them out
    again = Backbone.from_arrays(header, arrays)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.vit(images), backbone.vit(images))
    assert again.info == backbone.info
    weight = again.vit.blocks[0].attn.qkv.weight
    assert np.shares_memory(weight.numpy(), arrays["blocks.0.attn.qkv.weight"])
    assert not any(weight.requires_grad for weight in again.vit.parameters())


def test_another_image_size_is_another_backbone_with_resampled_positions(tmp_path: Path) -> None:
    write_backbone(tmp_path / "vit")
    native = load_backbone(str(tmp_path / "vit"))
    larger = load_backbone(str(tmp_path / "vit"), image_size=64)
    assert (native.image_size, larger.image_size) == ((32, 32), (64, 64))
    assert larger.info.num_tokens - 1 == 4 * (native.info.num_tokens - 1)
    assert larger.fingerprint != native.fingerprint
    same = load_backbone(str(tmp_path / "vit"), image_size=32)
    assert (same.fingerprint, same.info) == (native.fingerprint, native.info)
    rebuilt = Backbone.from_arrays(*larger.to_arrays())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(rebuilt.embed(rebuilt.normalise(images)), larger.embed(larger.normalise(images))), (
        "other processes have the same network"
    )
    assert rebuilt.info == larger.info


@pytest.mark.parametrize(("size", "near"), [(60, "56 and 64"), (3, "8 and 16"), (5000, "4088 and 4096")])
def test_a_size_that_patches_do_not_cover_is_refused_with_the_nearest(size: int, near: str) -> None:
    with pytest.raises(BackboneError, match=near):
        load_backbone(image_size=size)


@pytest.mark.parametrize(
    ("size", "near"), [(240, "224 and 256"), (248, "224 and 256"), (80, "64 and 96"), (8, "32 and 64")]
)
def test_a_hybrids_patch_is_counted_in_pixels(size: int, near: str) -> None:
    with pytest.raises(BackboneError, match=f"vit_tiny_r_s16_p8_224.*{near}"):
        load_backbone("vit_tiny_r_s16_p8_224", image_size=size, pretrained=False)


def test_a_hybrid_of_another_size_is_rebuilt() -> None:
    backbone = load_backbone("vit_tiny_r_s16_p8_224", image_size=96, pretrained=False)
    again = Backbone.from_arrays(*backbone.to_arrays())
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(again.embed(images), backbone.embed(images))
    assert again.info == backbone.info
    assert again.info.num_tokens == 10


def test_a_folder_of_a_hybrid_whose_patches_do_not_cover_its_size_is_refused(tmp_path: Path) -> None:
    config = {"architecture": "vit_tiny_r_s16_p8_224", "model_args": {"img_size": 240}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="cannot build 'vit_tiny_r_s16_p8_224'"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("num_params", "num_tokens", "threads"),
    [(2_400_000, 37, 1), (5_700_000, 197, 1), (22_000_000, 197, 4), (86_000_000, 197, 17), (1, 1, 1)],
)
def test_threads_grow_with_the_products_of_an_image(num_params: int, num_tokens: int, threads: int) -> None:
    """The bundled backbone, ViT-Ti, ViT-S and ViT-B of 16 pixels a patch."""
    info = replace(load_backbone("bundled").info, num_params=num_params, num_tokens=num_tokens)
    assert info.most_threads == threads


@pytest.mark.parametrize(("ratio", "is_plain"), [(4.0, True), (4.5, False)])
def test_low_ranks_of_an_mlp_that_cannot_have_them_are_refused(
    tmp_path: Path, ratio: float, is_plain: bool
) -> None:
    write_backbone(tmp_path / "vit", mlp_ratio=ratio)
    backbone = load_backbone(str(tmp_path / "vit"))
    assert backbone.has_plain_mlp == is_plain
    data = make_data()
    with nullcontext() if is_plain else pytest.raises(ConfigError, match=r"cannot be updated \(fc1, fc2\)"):
        check_fit(backbone, data, TuneConfig(kind="lora", low_rank_on="fc1+fc2"))
    check_fit(backbone, data, TuneConfig(kind="lora", low_rank_on="qkv+proj"))
