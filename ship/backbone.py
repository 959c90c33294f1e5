"""The frozen vision transformer that all tasks share.

Owns which timm models are supported, how they are found and loaded, and their fingerprint. Knows nothing of
prompts: ``ship.method.model`` runs timm's own blocks with them.

Shapes: B batch, N tokens (class and register tokens included), D width.
"""

import copy
import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ship.backbone_info import BackboneInfo
from ship.backbone_spec import BUNDLED, BUNDLED_FOLDER, hub_name, is_folder, split_weights
from ship.errors import BackboneError
from ship.linear import freeze_linears
from ship.vit import Attention, Block, Mlp, VisionTransformer, resolve_model_data_config, timm

__all__ = ["BUNDLED", "MAX_IMAGE_SIZE", "Backbone", "as_rows", "load_backbone"]

MAX_IMAGE_SIZE = 4096
_CONFIG_KEYS = {"architecture", "num_classes", "num_features", "global_pool", "model_args", "pretrained_cfg"}


class Backbone:
    """A frozen timm vision transformer with a class token, always in eval mode.

    Raises:
        BackboneError: The method cannot run this model exactly; lists everything that is in the way.
    """

    def __init__(
        self, vit: VisionTransformer, info: BackboneInfo, device: torch.device | str = "cpu"
    ) -> None:
        self.info = info
        freeze_linears(vit)
        self.vit = vit.eval().requires_grad_(False).to(device)
        self._mean_C11 = torch.tensor(info.mean, device=device).view(3, 1, 1)
        self._std_C11 = torch.tensor(info.std, device=device).view(3, 1, 1)

    def __repr__(self) -> str:
        """Name, size and place."""
        info = self.info
        return (
            f"Backbone({info.name!r}, {info.num_params / 1e6:.1f}M weights, {info.depth} layers of width "
            f"{info.width}, {info.image_size[0]} x {info.image_size[1]} pixels, {self.device})"
        )

    @property
    def name(self) -> str:
        """Name by which it was loaded, without a path."""
        return self.info.name

    @property
    def fingerprint(self) -> str:
        """sha256 of architecture, weights and preprocessing."""
        return self.info.fingerprint

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.info.image_size

    @property
    def interpolation(self) -> str:
        """Filter by which images are resized to ``image_size``."""
        return self.info.interpolation

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._mean_C11.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, and so of all activations."""
        dtype: torch.dtype = next(self.vit.parameters()).dtype
        return dtype

    @property
    def blocks(self) -> list[Block]:
        """The L transformer blocks, timm's own."""
        return list(self.vit.blocks)

    @property
    def norm(self) -> nn.Module:
        """The final norm, before a head."""
        norm: nn.Module = self.vit.norm
        return norm

    @property
    def has_plain_mlp(self) -> bool:
        """Whether low ranks can update the MLPs: all are timm's ``Mlp``, four times as wide as the tokens."""
        width = self.info.width
        return all(
            type(block.mlp) is Mlp and block.mlp.fc1.out_features == 4 * width == block.mlp.fc2.in_features
            for block in self.blocks
        )

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """Images in uint8 to what the model was trained on, float32, on the backbone's device."""
        images_BCHW = images_BCHW.to(self.device, non_blocking=True)
        return (images_BCHW.float() / 255.0 - self._mean_C11) / self._std_C11

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Normalised images to the tokens ``z_BND`` that enter the first block; token 0 is CLS."""
        patches_BPD = self.vit.patch_embed(images_BCHW.to(self.dtype))
        z_BND: Tensor = self.vit.norm_pre(self.vit._pos_embed(patches_BPD))
        return z_BND

    def to(self, device: torch.device | str) -> Self:
        """The same backbone on another device."""
        if torch.device(device) == self.device:
            return self
        return type(self)(copy.deepcopy(self.vit), self.info, device)

    def cast(self, dtype: torch.dtype) -> Self:
        """The same backbone computing in another dtype: its weights are cast once, here."""
        if dtype == self.dtype:
            return self
        return type(self)(copy.deepcopy(self.vit).to(dtype), self.info, self.device)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, from which ``load_backbone`` makes it again.

        Raises:
            OSError: They cannot be written.
        """
        info = self.info
        config = {
            "architecture": info.architecture,
            "num_classes": 0,
            "model_args": info.model_args,
            "pretrained_cfg": {"mean": info.mean, "std": info.std, "interpolation": info.interpolation},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(
            {key: value.contiguous() for key, value in self.vit.state_dict().items()},
            folder / "model.safetensors",
        )

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Header (JSON values) and weights, for other processes on this machine to share without a copy."""
        weights = {key: value.detach().cpu().numpy() for key, value in self.vit.state_dict().items()}
        return self.info.to_dict(), weights

    @classmethod
    def from_arrays(
        cls,
        header: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        device: torch.device | str = "cpu",
    ) -> Self:
        """Undo ``to_arrays``. On the CPU the weights stay where they are: read-only memory is fine."""
        info = BackboneInfo.from_dict(header)
        with torch.device("meta"):
            vit = _build(info.architecture, info.model_args)
        vit.load_state_dict({key: _as_tensor(array) for key, array in arrays.items()}, assign=True)
        return cls(vit, info, device)


def as_rows(images: Tensor) -> Tensor:
    """Pictures in tiles ``B,T,C,H,W`` as rows of a forward pass, tile by tile; whole ones as they are."""
    return images.flatten(0, 1) if images.ndim == 5 else images


def load_backbone(
    spec: str = BUNDLED,
    device: torch.device | str = "cpu",
    *,
    image_size: int | None = None,
    pretrained: bool = True,
) -> Backbone:
    """Load a backbone and freeze it.

    Args:
        spec: See ``ship.backbone_spec``.
        device: Device for the weights.
        image_size: Height and width of its input in pixels; the position embedding is resampled, and it is
            another backbone, of a fingerprint of its own. None for the size that it was trained at.
        pretrained: For a timm name: False leaves its weights random, for tests and for timing.

    Raises:
        BackboneError: It is unknown, cannot be read, or is of a kind that is not supported exactly.
    """
    shown = spec
    if spec == BUNDLED:
        vit, architecture, model_args = _load_folder(BUNDLED_FOLDER)
    elif (weights_file := split_weights(spec)) is not None:
        name, file = weights_file
        vit, architecture, model_args = _create(name, pretrained=False), name, {}
        _load_weights(vit, file)
        shown = f"{name}:{file.name}"
    elif is_folder(spec):
        folder = Path(spec).expanduser()
        vit, architecture, model_args = _load_folder(folder)
        shown = Path(os.path.abspath(folder)).name
    elif (repository := hub_name(spec)) is not None:
        vit = _create(spec, pretrained=pretrained)
        architecture, model_args = _built_from(spec, repository)
    else:
        vit, architecture, model_args = _create(spec, pretrained=pretrained), spec.split(".")[0], {}
    if problems := _find_unsupported(vit):
        raise BackboneError([f"backbone {spec!r}: {problem}" for problem in problems])
    # As they were read: resampled ones may differ in their last bits from machine to machine.
    weights = dict(vit.state_dict())
    if image_size is not None and vit.patch_embed.img_size != (image_size, image_size):
        _resize(vit, spec, image_size)
        model_args = {**model_args, "img_size": image_size}
    return Backbone(vit, _describe(shown, architecture, model_args, vit, weights), device)


def _resize(vit: VisionTransformer, spec: str, image_size: int) -> None:
    patch = int(vit.patch_embed.patch_size[0])
    if patch > 1:
        # A hybrid counts its patch in cells of the feature map below, each of so many pixels.
        patch *= int(getattr(vit.patch_embed, "feature_ratio", (1, 1))[0])
    if image_size % patch or not patch <= image_size <= MAX_IMAGE_SIZE:
        below = max(1, int(min(image_size, MAX_IMAGE_SIZE - patch) // patch)) * patch
        raise BackboneError(
            f"backbone {spec!r}: image_size: expected a multiple of its patch's side {patch} up to "
            f"{MAX_IMAGE_SIZE}, got {image_size}; near it are {below} and {below + patch}"
        )
    vit.set_input_size(img_size=(image_size, image_size))


def _build(architecture: str, model_args: Mapping[str, Any]) -> VisionTransformer:
    return timm.create_model(architecture, pretrained=False, num_classes=0, **model_args)


def _create(name: str, *, pretrained: bool) -> VisionTransformer:
    if hub_name(name) is None and not timm.is_model(name.split(".")[0]):
        close = timm.list_models(f"*{name.split('.')[0]}*")[:5] or timm.list_models("vit_*")[:5]
        raise BackboneError(
            f"backbone {name!r}: no such timm model, folder or file; timm has for instance "
            f"{', '.join(close)}; `{BUNDLED}` needs no download"
        )
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # timm, the hub's client and urllib each raise their own kinds
        raise _not_loaded(name, error) from error


def _built_from(name: str, repository: str) -> tuple[str, dict[str, Any]]:
    """The architecture that a repository of the hub names, and its arguments: they need no hub any more."""
    try:
        _, architecture, model_args = timm.models.load_model_config_from_hf(repository)
    except Exception as error:  # as above
        raise _not_loaded(name, error) from error
    return architecture, {key: value for key, value in (model_args or {}).items() if key != "num_classes"}


def _not_loaded(name: str, error: Exception) -> BackboneError:
    return BackboneError(
        f"backbone {name!r}: timm could not load it ({type(error).__name__}: {str(error)[:300]}); check "
        f"the name with timm.list_pretrained(), and the network; `{BUNDLED}` needs no download"
    )


def _load_folder(folder: Path) -> tuple[VisionTransformer, str, dict[str, Any]]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"backbone {str(folder)!r}: expected a folder with timm's config.json and model.safetensors "
            f"({type(error).__name__}: {error}); timm.models.save_for_hf writes one"
        ) from error
    unknown = set(config) - _CONFIG_KEYS if isinstance(config, dict) else {"(not a mapping)"}
    if unknown or "architecture" not in config:
        raise BackboneError(
            f"backbone {str(folder)!r}: config.json must have `architecture` and only "
            f"{', '.join(sorted(_CONFIG_KEYS))}; found {', '.join(sorted(config))}"
        )
    architecture, model_args = config["architecture"], dict(config.get("model_args") or {})
    overlay = {
        key: value
        for key, value in (config.get("pretrained_cfg") or {}).items()
        if key in ("mean", "std", "interpolation")
    }
    try:
        vit = timm.create_model(
            architecture, pretrained=False, num_classes=0, pretrained_cfg_overlay=overlay, **model_args
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise BackboneError(
            f"backbone {str(folder)!r}: timm cannot build {architecture!r}: {error!r}"
        ) from error
    _load_weights(vit, folder / "model.safetensors")
    return vit, architecture, model_args


def _load_weights(vit: VisionTransformer, file: Path) -> None:
    try:
        state = {key: value.float() for key, value in load_file(file).items() if not key.startswith("head.")}
        vit.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BackboneError(
            f"backbone weights {str(file)!r} cannot be read or do not fit: {error}"
        ) from error


def _find_unsupported(vit: nn.Module) -> list[str]:
    """Everything that keeps the method from running on this model exactly."""
    if not isinstance(vit, VisionTransformer) or type(vit).__name__ != "VisionTransformer":
        return [f"expected timm's VisionTransformer, found {type(vit).__name__}"]
    problems = []
    if vit.cls_token is None:
        problems.append("it has no class token, from which levels, attribute prompts and the head are read")
    if vit.global_pool != "token" or vit.attn_pool is not None:
        problems.append(f"it pools its tokens by {vit.global_pool!r}; a class-token head ('token') is needed")
    if not isinstance(vit.fc_norm, nn.Identity):
        problems.append("its final norm is in its head (fc_norm), where levels and prompts do not see it")
    # A hybrid's patches are of the features of convolutions before them.
    first = next((one for one in vit.patch_embed.modules() if isinstance(one, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3:
        problems.append(f"it takes images of {first.in_channels} channels; 3 are needed")
    in_blocks = [problem for block in vit.blocks for problem in _find_unsupported_in_block(block)]
    problems += [
        f"in {count} of {len(vit.blocks)} blocks: {problem}" for problem, count in Counter(in_blocks).items()
    ]
    return problems


def _find_unsupported_in_block(block: Any) -> list[str]:
    if type(block) is not Block:
        return [f"expected timm's pre-norm Block, found {type(block).__name__}"]
    attention = block.attn
    if type(attention) is not Attention:
        return [f"expected timm's Attention, found {type(attention).__name__}"]
    problems = []
    if attention.attn_dim != attention.proj.out_features:
        problems.append("attention is not as wide as the tokens, so prompt tokens cannot skip it")
    if not isinstance(attention.norm, nn.Identity):
        problems.append("attention output is normalised (scale_norm), which prompt tokens that skip it lack")
    if attention.gate is not None:
        problems.append("attention is gated per element, which prompt tokens that skip it lack")
    return problems


def _describe(
    name: str, architecture: str, args: dict[str, Any], vit: VisionTransformer, weights: Mapping[str, Tensor]
) -> BackboneInfo:
    data = resolve_model_data_config(vit)
    block = vit.blocks[0]
    height, width = vit.patch_embed.img_size or data["input_size"][1:]
    fields: dict[str, Any] = {
        "image_size": (int(height), int(width)),
        "interpolation": data["interpolation"],
        "mean": tuple(float(value) for value in data["mean"]),
        "std": tuple(float(value) for value in data["std"]),
        "depth": len(vit.blocks),
        "width": int(vit.embed_dim),
        "num_heads": int(block.attn.num_heads),
        "num_tokens": int(vit.patch_embed.num_patches + vit.num_prefix_tokens),
    }
    # What shapes the function but shows in no weight. Names of the user's choice are left out on purpose.
    structure = {
        **fields,
        "no_embed_class": bool(vit.no_embed_class),
        "num_reg_tokens": int(vit.num_reg_tokens),
        "norm_eps": float(getattr(vit.norm, "eps", 0.0)),
        "act": type(block.mlp.act).__name__,
        "mlp": type(block.mlp).__name__,
        "norm": type(vit.norm).__name__,
    }
    return BackboneInfo(
        name=name,
        architecture=architecture,
        model_args=args,
        num_params=sum(weight.numel() for weight in vit.parameters()),
        fingerprint=_fingerprint(structure, weights),
        **fields,
    )


def _fingerprint(structure: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
    for key, value in sorted(weights.items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's own memory. Nothing writes to it: the backbone is frozen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
