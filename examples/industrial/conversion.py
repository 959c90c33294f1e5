"""Conversion of an exported Dinov2 (Hugging Face's names, ONNX) to the names and shapes of timm.

An exporter keeps the names of biases and norms; the weight of a linear layer becomes a constant without a
name, transposed, which the graph multiplies just before it adds the named bias.

Shapes: N tokens, D width, F outputs of a linear layer.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["read_constants", "to_timm"]

_POSITIONS = "positions"
_BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attn.proj.weight": "attention.output.dense.weight",
    "attn.proj.bias": "attention.output.dense.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "ls2.gamma": "layer_scale2.lambda1",
}


def read_constants(graph: Any) -> dict[str, np.ndarray]:
    """The constants of an ONNX graph by Hugging Face's names, linear weights and positions among them.

    Args:
        graph: ``onnx.GraphProto`` of a Dinov2 encoder below the name ``backbone``.

    Raises:
        ValueError: The graph has not the two constants of positions, of the class token and of patches.
    """
    from onnx import numpy_helper

    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    weights = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    named = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:
        biases = [name for name in node.input if name.startswith("backbone.") and name.endswith(".bias")]
        products = [weights[name] for name in node.input if weights.get(name) in arrays]
        if node.op_type == "Add" and biases and products:
            named[biases[0].removesuffix("bias") + "weight"] = arrays[products[0]].T
    width = named["backbone.embeddings.cls_token"].shape[-1]
    positions = [
        array
        for name, array in arrays.items()
        if name not in named and array.ndim == 3 and array.shape[0] == 1 and array.shape[2] == width
    ]
    positions.sort(key=lambda array: array.shape[1])
    if len(positions) != 2 or positions[0].shape[1] != 1:
        raise ValueError(
            f"expected two constants of positions, 1 x 1 x {width} and 1 x N x {width}; found shapes "
            f"{[array.shape for array in positions]}: the exporter folded them in another way"
        )
    return {**named, _POSITIONS: np.concatenate(positions, axis=1)}


def to_timm(constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of timm's ``VisionTransformer`` from ``read_constants``.

    Raises:
        ValueError: Constants are missing.
    """
    try:
        return _to_timm(constants)
    except KeyError as error:
        raise ValueError(f"the graph has no constant {error}: it is not an exported Dinov2") from error


def _to_timm(constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    embeddings, encoder = "backbone.embeddings", "backbone.encoder.layer"
    state = {
        "cls_token": constants[f"{embeddings}.cls_token"],
        "pos_embed": constants[_POSITIONS],
        "patch_embed.proj.weight": constants[f"{embeddings}.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": constants[f"{embeddings}.patch_embeddings.projection.bias"],
        "norm.weight": constants["backbone.layernorm.weight"],
        "norm.bias": constants["backbone.layernorm.bias"],
    }
    depth = len({name.split(".")[3] for name in constants if name.startswith(f"{encoder}.")})
    for layer in range(depth):
        old, new = f"{encoder}.{layer}", f"blocks.{layer}"
        state |= {f"{new}.{target}": constants[f"{old}.{source}"] for target, source in _BLOCK.items()}
        for kind in ("weight", "bias"):
            parts = [
                constants[f"{old}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")
            ]
            state[f"{new}.attn.qkv.{kind}"] = np.concatenate(parts)
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in state.items()}
