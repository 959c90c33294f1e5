"""The golden files: one published case as our objects."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ship.backbone import Backbone, BackboneInfo
from ship.method.prompts import Prompt
from ship.settings.config import TuneConfig
from ship.vit import VisionTransformer

__all__ = ["FORWARD", "GOLDEN", "TOLERANCE", "Case", "relative_error"]

GOLDEN = Path(__file__).parents[3] / "golden"
FORWARD = sorted(GOLDEN.glob("forward/*.safetensors"))
# Float32 sums in another order: the golden files ask for 1e-4 relative.
TOLERANCE = 1e-4


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).norm() / expected.norm().clamp_min(1e-12))


class Case:
    """One golden file as our objects."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self.config = json.loads(file.metadata()["config"])
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        self.backbone = self._backbone()
        self.prompt = self._prompt()
        self.images = self.tensors["input.images_x4_int8"].float() / 4.0
        self.labels = self.tensors["input.labels"]

    def named(self, prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)
        }

    def _backbone(self) -> Backbone:
        c = self.config
        norm = lambda width, **kw: torch.nn.LayerNorm(width, eps=c["layer_norm_eps"], **kw)  # noqa: E731
        vit = VisionTransformer(
            img_size=c["img_size"],
            patch_size=c["patch_size"],
            embed_dim=c["embed_dim"],
            depth=c["depth"],
            num_heads=c["num_heads"],
            num_classes=0,
            norm_layer=norm,
        )
        vit.load_state_dict(self.named("backbone."))
        info = BackboneInfo(
            name="golden",
            architecture="",
            model_args={},
            image_size=(c["img_size"], c["img_size"]),
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            depth=c["depth"],
            width=c["embed_dim"],
            num_heads=c["num_heads"],
            num_tokens=197,
            num_params=0,
            fingerprint="0" * 64,
        )
        return Backbone(vit, info)

    def _prompt(self) -> Prompt:
        c = self.config
        config = TuneConfig(
            start="published",
            num_independent=c["num_independent"],
            attention_scale=c["decoupled_scale"],
            num_attribute=10,
            attribute_mix=c["attribute_mix"],
            matching_weight=c["matching_weight"],
            top_k=c["top_k"],
        )
        prompt = Prompt(
            config,
            level_starts=c["level_starts"],
            depth=c["depth"],
            prototypes_RD=self.tensors["prompt.prototypes"],
            num_classes=c["num_classes"],
        )
        missing, unexpected = prompt.load_state_dict(self.named("prompt."), strict=False)
        assert (missing, unexpected) == (["gate"], [])
        return prompt
