"""``adapter_config.json`` of a PEFT LoRA adapter, read strictly.

A setting that changes what the layers compute, and that a low-rank row cannot reproduce, is refused by name.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ship.artifact.card import parse_json
from ship.errors import ArtifactError
from ship.settings.checks import Check, number, whole

__all__ = ["ADAPTER_CONFIG", "HEADS", "MAX_RANK", "LoraSettings", "read_settings"]

ADAPTER_CONFIG = "adapter_config.json"
# Names under which models keep their classification head.
HEADS = ("head", "classifier", "fc")
MAX_RANK = 256
# Settings that play no part once an adapter is trained.
_INERT = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
# Initial values; all others change the backbone's own weights.
_STARTS = (True, False, "gaussian", "orthogonal", "eva")
_SIMPLE = (
    "of at most 200 characters, 3 groups, 24 alternatives and 3 repetitions, none of a group and no flags"
)
_NAMES: Check = (
    lambda v: _are_names(v) or (isinstance(v, str) and _is_simple(v)),
    f"a list of names, or a pattern {_SIMPLE}",
)
_ALPHA = number("from -1e6 to 1e6", lambda v: -1e6 <= v <= 1e6)
_CHECKS: dict[str, Check] = {
    "peft_type": (lambda v: v == "LORA", "LORA, the one kind of adapter that is served"),
    "bias": (lambda v: v == "none", "none, as all tasks share the backbone's biases"),
    "fan_in_fan_out": (lambda v: v is False, "false, as timm's linear layers are"),
    "use_rslora": (lambda v: isinstance(v, bool), "true or false"),
    "r": whole(1, MAX_RANK),
    "lora_alpha": _ALPHA,
    "target_modules": _NAMES,
    "exclude_modules": (lambda v: v is None or _NAMES[0](v), _NAMES[1]),
    "rank_pattern": (
        lambda v: _has_patterns(v, whole(1, MAX_RANK)),
        f"ranks from 1 to {MAX_RANK}, each of a pattern {_SIMPLE}",
    ),
    "alpha_pattern": (lambda v: _has_patterns(v, _ALPHA), f"numbers, each of a pattern {_SIMPLE}"),
    "layers_to_transform": (
        lambda v: v is None or whole(0)[0](v) or (isinstance(v, list) and all(map(whole(0)[0], v))),
        "layer numbers",
    ),
    "layers_pattern": (lambda v: v in (None, [], "blocks", ["blocks"]), "blocks, the name of timm's layers"),
    "init_lora_weights": (
        lambda v: isinstance(v, (bool, str)) and v in _STARTS,
        "true, false, gaussian, orthogonal or eva: others change the backbone's own weights; save the "
        "adapter with path_initial_model_for_weight_conversion",
    ),
    "modules_to_save": (
        lambda v: v is None or (_are_names(v) and len(v) == 1 and v[0] in HEADS),
        f"at most the head ({', '.join(HEADS)}): every other module of the backbone is frozen",
    ),
}
_DEFAULTS: dict[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "exclude_modules": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "layers_pattern": None,
    "init_lora_weights": True,
    "modules_to_save": None,
}
_REASONS = {
    "layer_replication": "it repeats layers of the backbone, which all tasks share",
    "lora_bias": "an update with a bias is not a low-rank update",
    "target_parameters": "it updates weights that are not linear layers of the blocks",
    "trainable_token_indices": "it updates embeddings, which all tasks share",
    "use_dora": "DoRA rescales the whole weight of a layer, which is not a low-rank update",
}


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Rank, scale and targets of a PEFT LoRA adapter.

    Attributes:
        values: Content of the file, with PEFT's defaults.
    """

    values: Mapping[str, Any]

    @property
    def head(self) -> str | None:
        """Name of the head that the adapter holds, if any."""
        names = self.values["modules_to_save"]
        return names[0] if names else None

    @property
    def base_model(self) -> str | None:
        """Name of the model that it was trained on, as far as PEFT knew."""
        name = self.values.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    def targets(self, module: str) -> bool:
        """Whether a linear layer of a block, such as ``blocks.3.attn.qkv``, is updated."""
        excluded, chosen = self.values["exclude_modules"], self.values["target_modules"]
        if excluded and _names(excluded, module):
            return False
        if isinstance(chosen, str) and chosen.lower() == "all-linear":
            return True
        return _names(chosen, module) and (isinstance(chosen, str) or self._has_layer(module))

    def rank(self, module: str) -> int:
        """The rank of a layer's update."""
        found: int = _look_up(self.values["rank_pattern"], module, self.values["r"])
        return found

    def scale(self, module: str) -> float:
        """The factor of a layer's update."""
        rank = self.rank(module)
        alpha = _look_up(self.values["alpha_pattern"], module, self.values["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self.values["use_rslora"] else rank)

    def _has_layer(self, module: str) -> bool:
        layers = self.values["layers_to_transform"]
        if layers is None or layers == []:
            return True
        layer = int(module.split(".")[1])
        return layer in layers if isinstance(layers, list) else layer == int(layers)


def read_settings(content: bytes) -> LoraSettings:
    """Read the file.

    Raises:
        ArtifactError: Lists every setting that cannot be reproduced exactly.
    """
    values = parse_json(content, ADAPTER_CONFIG)
    problems = [
        f"{ADAPTER_CONFIG}: missing key {key!r}" for key in _CHECKS if key not in {**_DEFAULTS, **values}
    ]
    for key, value in values.items():
        if key in _CHECKS:
            is_good, expected = _CHECKS[key]
            if not is_good(value):
                problems.append(f"{ADAPTER_CONFIG}: {key}: expected {expected}, found {str(value)[:100]!r}")
        elif key not in _INERT and value not in (None, False, [], {}, ""):
            reason = _REASONS.get(key, "it may change what the layers compute, and cannot be reproduced")
            problems.append(f"{ADAPTER_CONFIG}: {key}: {str(value)[:100]!r}: {reason}; train without it")
    if problems:
        raise ArtifactError(problems)
    return LoraSettings(values={**_DEFAULTS, **values})


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _has_patterns(value: object, check: Check) -> bool:
    return isinstance(value, dict) and all(_is_simple(key) and check[0](value[key]) for key in value)


def _is_simple(pattern: str) -> bool:
    """Whether a regular expression from a file can be trusted to end soon, on names of thirty letters."""
    plain = pattern.replace("(?:", "(")
    num_repetitions = sum(map(plain.count, "*+?{"))
    if len(plain) > 200 or num_repetitions > 3 or plain.count("(") > 3 or plain.count("|") > 24:
        return False
    if re.search(r"\)\s*[*+?{]|\(\?", plain):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _names(names: str | Iterable[str], module: str) -> bool:
    """Whether a pattern, or one of some names, means a module, as PEFT has it."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _look_up(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that fits the end of a module's name, as PEFT has it."""
    found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, default)
