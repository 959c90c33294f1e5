"""PEFT's LoRA adapters of a timm vision transformer, to prompts and back.

    adapter_config.json         rank, scale, targets (``ship.artifact.peft_config``)
    adapter_model.safetensors   two factors for each updated linear layer, and the head
    labels.txt                  class names, one a line; ours, PEFT does not read it

A prompt that is made of an adapter gives the scores that PEFT gives. What cannot be reproduced is refused by
name. No pickle is read.

Shapes: D width, L layers, r rank, I inputs and O outputs of a linear layer, C classes.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from ship.artifact.files import read_tensors
from ship.artifact.peft_config import ADAPTER_CONFIG, HEADS, LoraSettings, read_settings
from ship.backbone import Backbone
from ship.errors import ArtifactError
from ship.method.prompts import Prompt
from ship.settings.config import TARGETS, TuneConfig

__all__ = ["ADAPTER_MODEL", "LABELS", "AdapterFiles", "adapter_to_prompt", "prompt_to_adapter", "read_folder"]

ADAPTER_MODEL, LABELS = "adapter_model.safetensors", "labels.txt"
_MAX_BYTES = {ADAPTER_CONFIG: 1 << 20, ADAPTER_MODEL: 1 << 30, LABELS: 16 << 20}
_PREFIX = "base_model.model."
# Our names of a block's linear layers to timm's.
_PATHS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_NAMES = {path: name for name, path in _PATHS.items()}
_FACTOR = re.compile(
    rf"(blocks\.(0|[1-9][0-9]{{0,3}})\.({'|'.join(map(re.escape, _NAMES))}))\.lora_([AB])\.weight"
)
_REASONS = {
    "lora_embedding": "an update of embeddings, which all tasks share",
    "lora_magnitude_vector": "DoRA's scale of a layer, which is not a low-rank update",
    "lora_": f"an update of another layer than {', '.join(_PATHS.values())} of a block, which is not served",
}


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """Content of an adapter's files.

    Attributes:
        config: Of ``adapter_config.json``.
        model: Of ``adapter_model.safetensors``.
        head: Of a safetensors file with ``weight`` and ``bias``, for an adapter that holds no head.
        labels: Of ``labels.txt``, if there is one.
    """

    config: bytes
    model: bytes
    head: bytes | None = None
    labels: bytes | None = None


def read_folder(folder: str | os.PathLike[str], head: str | os.PathLike[str] | None = None) -> AdapterFiles:
    """Read an adapter's files, as bytes; nothing in them is looked at.

    Args:
        folder: The adapter's, as PEFT saves it.
        head: A safetensors file with the head's ``weight`` and ``bias``.

    Raises:
        ArtifactError: A file is missing or too large, or is a pickle.
    """
    source = Path(folder)
    if not (source / ADAPTER_MODEL).is_file() and (pickles := sorted(source.glob("adapter_model*.bin"))):
        raise ArtifactError(
            f"{pickles[0]}: a pickle, which can run any program and is not read; save the adapter again with "
            "`model.save_pretrained(FOLDER, safe_serialization=True)`"
        )
    has_labels = (source / LABELS).is_file()
    return AdapterFiles(
        config=_read(source / ADAPTER_CONFIG, _MAX_BYTES[ADAPTER_CONFIG]),
        model=_read(source / ADAPTER_MODEL, _MAX_BYTES[ADAPTER_MODEL]),
        head=None if head is None else _read(Path(head), _MAX_BYTES[ADAPTER_MODEL]),
        labels=_read(source / LABELS, _MAX_BYTES[LABELS]) if has_labels else None,
    )


def adapter_to_prompt(files: AdapterFiles, backbone: Backbone) -> Prompt:
    """The prompt that gives the scores of a PEFT LoRA adapter on a backbone.

    Layers of a smaller rank are padded with zeros to the largest one, and PEFT's scale is multiplied in.

    Raises:
        ArtifactError: Lists everything that cannot be reproduced exactly, or does not fit the backbone.
    """
    settings = read_settings(files.config)
    tensors = _float32(read_tensors(files.model, ADAPTER_MODEL), ADAPTER_MODEL)
    factors, rest = _sort(tensors)
    head = _take_head(rest, settings, files.head)
    problems = [f"{ADAPTER_MODEL}: {key!r}: {_reason(key)}" for key in sorted(rest)]
    problems += _target_problems(factors, settings, backbone)
    if not head["bias"].numel():
        problems.append("bias: expected one number for each class, found none")
    if problems:
        raise ArtifactError(problems)
    wanted = _shapes(factors, head, settings, backbone)
    found = {**{f"{module}.lora_{part}": t for (module, part), t in factors.items()}, **head}
    if problems := [
        f"{ADAPTER_MODEL}: {key}: expected shape {shape}, found {tuple(found[key].shape)}"
        for key, shape in wanted.items()
        if found[key].shape != shape
    ]:
        raise ArtifactError(problems)
    return _make_prompt(factors, head, settings, backbone)


def prompt_to_adapter(prompt: Prompt, base_model: str, labels: tuple[str, ...]) -> dict[str, bytes]:
    """Name to content of a PEFT LoRA adapter's files that give the scores of a prompt.

    Args:
        prompt: A finished prompt.
        base_model: Name of the timm model that is its backbone.
        labels: Class names.

    Raises:
        ArtifactError: Lists what the prompt has that a PEFT adapter cannot hold.
    """
    expected = {
        "kind: expected `lora`": ("lora", prompt.config.kind),
        "head: expected `cls`": (0, len(prompt.head_layers)),
        "tiles: expected 1 a picture": (1, prompt.num_tiles),
    }
    problems = [
        f"{text}, as a PEFT adapter is low ranks and a linear head on the last class token; found {found}"
        + (" earlier layers" if text.startswith("head") else "")
        for text, (wanted, found) in expected.items()
        if wanted != found
    ]
    if any("\n" in label for label in labels):
        problems.append(f"labels: expected names of one line each, for {LABELS}")
    if problems or prompt.low_rank is None:
        raise ArtifactError(problems or ["kind: expected `lora`, found no low-rank update"])
    tensors = {"head.weight": prompt.head.weight, "head.bias": prompt.head.bias}
    for name, (down_LrI, up_LOr) in prompt.low_rank.pairs().items():
        for layer in range(prompt.depth):
            module = f"blocks.{layer}.{_PATHS[name]}"
            tensors[f"{module}.lora_A.weight"] = down_LrI[layer]
            tensors[f"{module}.lora_B.weight"] = up_LOr[layer]
    content = {_PREFIX + key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return {
        ADAPTER_CONFIG: _config_of(prompt.config, base_model),
        ADAPTER_MODEL: save_tensors(content, metadata={"format": "pt"}),
        LABELS: "".join(f"{label}\n" for label in labels).encode(),
    }


def _config_of(config: TuneConfig, base_model: str) -> bytes:
    values = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": config.rank,
        "lora_dropout": 0.0,
        "modules_to_save": ["head"],
        "peft_type": "LORA",
        "r": config.rank,
        # With its parent: `proj` alone would also mean the patch embedding's.
        "target_modules": [_PATHS[name] for name in config.low_rank_targets],
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    return (json.dumps(values, indent=2) + "\n").encode()


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise ArtifactError(f"{path}: {size} bytes, expected at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}; expected a folder that PEFT saved") from error


def _float32(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    problems = [
        f"{name}: {key!r}: expected finite numbers in floating point, found {tensor.dtype}"
        + (" with NaN or infinity" if tensor.is_floating_point() else "")
        for key, tensor in sorted(tensors.items())
        if not (tensor.is_floating_point() and bool(tensor.float().isfinite().all()))
    ]
    if problems:
        raise ArtifactError(problems)
    return {key: tensor.float() for key, tensor in tensors.items()}


def _sort(tensors: Mapping[str, Tensor]) -> tuple[dict[tuple[str, str], Tensor], dict[str, Tensor]]:
    """Factors by module and part, and all other tensors by key."""
    factors, rest = {}, {}
    for key, tensor in tensors.items():
        found = _FACTOR.fullmatch(key.removeprefix(_PREFIX))
        if found is not None and key.startswith(_PREFIX):
            factors[found[1], found[4]] = tensor
        else:
            rest[key] = tensor
    return factors, rest


def _take_head(rest: dict[str, Tensor], settings: LoraSettings, file: bytes | None) -> dict[str, Tensor]:
    """Weight and bias of the head, out of a file of its own or out of the adapter."""
    name, where = settings.head, f"{ADAPTER_MODEL}: {_PREFIX}"
    if file is not None:
        if name is not None:
            raise ArtifactError(f"--head: the adapter holds a head of its own, {name!r}; leave --head out")
        found = _float32(read_tensors(file, "--head"), "--head")
        stripped = {key.split(".")[-1] if key.split(".")[0] in HEADS else key: t for key, t in found.items()}
        if set(stripped) != {"weight", "bias"} or len(found) != 2:
            raise ArtifactError(f"--head: expected tensors weight and bias, found {sorted(found)}")
        return stripped
    if name is None:
        raise ArtifactError(
            f"{ADAPTER_CONFIG}: modules_to_save: the adapter holds no head ({', '.join(HEADS)}); train it "
            "with `modules_to_save=['head']`, or give weight and bias as `--head FILE.safetensors`"
        )
    keys = {part: f"{_PREFIX}{name}.{part}" for part in ("weight", "bias")}
    if missing := [part for part, key in keys.items() if key not in rest]:
        raise ArtifactError([f"{where}{name}.{part}: missing" for part in missing])
    return {part: rest.pop(key) for part, key in keys.items()}


def _reason(key: str) -> str:
    if not key.startswith(_PREFIX):
        return f"unknown tensor; expected names that start with {_PREFIX}"
    return next((reason for part, reason in _REASONS.items() if part in key), "unknown tensor")


def _target_problems(
    factors: Mapping[tuple[str, str], Tensor], settings: LoraSettings, backbone: Backbone
) -> list[str]:
    """What tells apart the layers that have tensors and those that PEFT would update."""
    modules = {f"blocks.{layer}.{path}" for layer in range(backbone.info.depth) for path in _NAMES}
    targeted = {module for module in modules if settings.targets(module)}
    present = {module for module, _ in factors}
    problems = [
        f"{ADAPTER_MODEL}: {module}: backbone {backbone.name!r} has {backbone.info.depth} blocks"
        for module in sorted(present - modules)
    ]
    problems += [
        f"{ADAPTER_MODEL}: {module}: {ADAPTER_CONFIG} does not target it"
        for module in sorted((present & modules) - targeted)
    ]
    problems += [
        f"{ADAPTER_MODEL}: {module}: lora_A or lora_B is missing; {ADAPTER_CONFIG} targets the layer, which "
        f"backbone {backbone.name!r} has"
        for module in sorted(targeted)
        if not {(module, "A"), (module, "B")} <= set(factors)
    ]
    if not present:
        problems.append(f"{ADAPTER_MODEL}: no update of {', '.join(_NAMES)} of the blocks")
    if any(".mlp." in module for module in present) and not backbone.has_plain_mlp:
        problems.append(
            f"{ADAPTER_CONFIG}: target_modules: backbone {backbone.name!r} has an MLP whose layers cannot be "
            "updated: expected timm's Mlp, four times as wide as the tokens; target attn.qkv and attn.proj"
        )
    return problems


def _shapes(
    factors: Mapping[tuple[str, str], Tensor],
    head: Mapping[str, Tensor],
    settings: LoraSettings,
    backbone: Backbone,
) -> dict[str, tuple[int, ...]]:
    """The shape that each tensor must have."""
    num_classes = head["bias"].numel()
    shapes: dict[str, tuple[int, ...]] = {
        "weight": (num_classes, backbone.info.width),
        "bias": (num_classes,),
    }
    for module, part in factors:
        linear, rank = backbone.vit.get_submodule(module), settings.rank(module)
        size = (rank, linear.in_features) if part == "A" else (linear.out_features, rank)
        shapes[f"{module}.lora_{part}"] = size
    return shapes


@torch.no_grad()
def _make_prompt(
    factors: Mapping[tuple[str, str], Tensor],
    head: Mapping[str, Tensor],
    settings: LoraSettings,
    backbone: Backbone,
) -> Prompt:
    modules = sorted({module for module, _ in factors})
    names = {_NAMES[module.split(".", 2)[2]] for module in modules}
    config = TuneConfig(
        kind="lora",
        rank=max(map(settings.rank, modules)),
        low_rank_on="+".join(name for name in TARGETS if name in names),
    )
    prompt = Prompt(
        config,
        level_starts=(0,),
        depth=backbone.info.depth,
        prototypes_RD=torch.zeros(0, backbone.info.width),
        num_classes=head["bias"].numel(),
    )
    assert prompt.low_rank is not None, "of kind lora"
    prompt.head.weight.copy_(head["weight"])
    prompt.head.bias.copy_(head["bias"])
    for module in modules:
        _, number, path = module.split(".", 2)
        layer, name, rank = int(number), _NAMES[path], settings.rank(module)
        prompt.low_rank.down[name][layer, :rank] = factors[module, "A"]
        up_Or = factors[module, "B"] * settings.scale(module)
        if not bool(up_Or.isfinite().all()):
            raise ArtifactError(f"{ADAPTER_MODEL}: {module}.lora_B: with PEFT's scale it is not finite")
        prompt.low_rank.up[name][layer, :, :rank] = up_Or
    return prompt.requires_grad_(False).to(backbone.device)
