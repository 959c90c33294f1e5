"""Lets timm be imported beside a torchvision that was built for another torch.

timm imports torchvision at its top. The registry's torchvision is a CUDA build: beside a CPU-only torch its
compiled library cannot be loaded, and its import dies on ``torchvision::nms does not exist``, an operator
that no vision transformer uses. Declaring the missing operators lets the import finish. They get no
implementation: calling one is an error, as it would be without this module.

Import this module before timm. It does nothing where torchvision imports, or is not installed at all.
"""

import sys

import torch

__all__: list[str] = []

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


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
    for schema in _SCHEMAS.values():
        library.define(schema)
    return library


# Kept alive with the module: the declarations vanish with the object.
_LIBRARY = _declare_missing_operators()
