"""timm's vision transformer and its parts, imported beside any torchvision; others import them here.

timm imports torchvision at its top. The package index's torchvision is a CUDA build: beside a CPU-only torch
its compiled library cannot be loaded, and its import fails with ``torchvision::nms does not exist``, an
operator that no vision transformer uses. Declaring the missing operators first lets the import finish. They
get no implementation: calling one is an error, as it would be without this module. Nothing is declared where
torchvision imports, or is not installed at all.
"""

# ruff: noqa: E402 - the operators must be declared before timm is imported.

import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _declare_missing_operators() -> torch.library.Library | None:
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return None
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


# Kept alive with the module: the declarations vanish with the object.
_LIBRARY = _declare_missing_operators()

import timm
from timm.data import resolve_model_data_config
from timm.layers import Attention, Mlp
from timm.models.vision_transformer import Block, VisionTransformer

__all__ = ["Attention", "Block", "Mlp", "VisionTransformer", "resolve_model_data_config", "timm"]
