"""timm's vision transformer and its parts, imported in the one order that always works.

Everything else imports them from here, so that no file has to think of ``ship.torchvision_compat``.
"""

# isort: off
import ship.torchvision_compat  # noqa: F401 - before timm, see there

import timm
from timm.data import resolve_model_data_config
from timm.layers import Attention, Mlp
from timm.models.vision_transformer import Block, VisionTransformer
# isort: on

__all__ = ["Attention", "Block", "Mlp", "VisionTransformer", "resolve_model_data_config", "timm"]
