"""A tuning under way, and its snapshot: bytes from which another process goes on.

A snapshot is one safetensors file: tensors, and JSON in its metadata. Nothing in it is executed when read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ship.errors import ArtifactError, ConfigError
from ship.method.prompts import Prompt
from ship.settings.config import TuneConfig
from ship.tuning.optimizer import make_optimizer
from ship.tuning.preparation import Preparation

__all__ = ["EpochReport", "TuningState"]

_HEAD_SCALES = ("feature_mean", "feature_scale")
_PROBE_LOGITS = "probe_logits"
# Names in the file's metadata.
_HEADER, _NOTE = "ship", "note"
# Of a snapshot's header; the first versions wrote none.
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch of tuning.

    Attributes:
        epoch: From 1.
        num_epochs: Number of all epochs, with the floor of ``min_steps``.
        loss: Mean over the epoch's images, matching loss included.
        matching_loss: Its matching part, before its weight.
        train_accuracy: Running, over the epoch's images as they were seen.
        val_accuracy: Accuracy on the validation split; None without one.
        val_loss: Cross-entropy on the validation split; None without one.
        learning_rate: Learning rate of the epoch's last step.
        time_s: Seconds since the epoch, by this machine's clock.
    """

    epoch: int
    num_epochs: int
    loss: float
    matching_loss: float
    train_accuracy: float
    val_accuracy: float | None
    val_loss: float | None
    learning_rate: float
    time_s: float


@dataclass(kw_only=True)
class TuningState:
    """All that changes while a task is tuned.

    Attributes:
        prompt: The prompt in its present state.
        preparation: Findings that it started from.
        optimizer: AdamW over the prompt's trained parameters.
        head_start_CF: The head's weight before the first step.
        history: Epochs that are done.
        spent_s: Seconds spent on them.
    """

    prompt: Prompt
    preparation: Preparation
    optimizer: torch.optim.AdamW
    head_start_CF: Tensor
    history: list[EpochReport] = field(default_factory=list)
    spent_s: float = 0.0

    @classmethod
    def start(cls, prompt: Prompt, preparation: Preparation) -> "TuningState":
        """The state before the first step."""
        return cls(
            prompt=prompt,
            preparation=preparation,
            optimizer=make_optimizer(prompt),
            head_start_CF=prompt.head.weight.detach().clone(),
        )

    def to_bytes(self, identity: Mapping[str, Any], note: str | None = None) -> bytes:
        """A snapshot.

        Args:
            identity: JSON values that must be the same when it is resumed: data, settings, backbone.
            note: Text that it carries along, see ``note_of``.
        """
        tensors = {f"prompt.{key}": value for key, value in self.prompt.state_dict().items()}
        tensors["head_start"] = self.head_start_CF
        tensors |= {name: getattr(self.prompt, name) for name in _HEAD_SCALES}
        preparation = asdict(replace(self.preparation, probe_logits_BC=None))
        del preparation["probe_logits_BC"]
        if self.preparation.probe_logits_BC is not None:
            tensors[_PROBE_LOGITS] = self.preparation.probe_logits_BC
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
        header = {
            "schema": _SCHEMA,
            "identity": identity,
            "level_starts": self.prompt.level_starts,
            "head_layers": self.prompt.head_layers,
            "num_tiles": self.prompt.num_tiles,
            "preparation": preparation,
            "history": [asdict(report) for report in self.history],
            "spent_s": self.spent_s,
        }
        copied = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        metadata = {_HEADER: json.dumps(header)}
        return save(copied, metadata=metadata if note is None else {**metadata, _NOTE: note})

    @staticmethod
    def config_of(content: bytes) -> TuneConfig:
        """The settings of the tuning that a snapshot is of.

        Raises:
            ArtifactError: The snapshot is damaged.
        """
        try:
            return TuneConfig.from_dict(_read_header(content)["identity"]["config"])
        except (SafetensorError, KeyError, TypeError, ValueError, ConfigError) as error:
            raise ArtifactError(f"snapshot: it is damaged ({error}); start over") from error

    @staticmethod
    def note_of(content: bytes) -> str | None:
        """The text that a snapshot carries along; None if it has none, as in those of earlier versions.

        Raises:
            ArtifactError: The snapshot is damaged.
        """
        try:
            return _read_metadata(content).get(_NOTE)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ArtifactError(f"snapshot: it is damaged ({error}); start over") from error

    @classmethod
    def from_bytes(cls, content: bytes, identity: Mapping[str, Any], device: torch.device) -> "TuningState":
        """Undo ``to_bytes``.

        Raises:
            ArtifactError: The snapshot is damaged, or of another tuning.
        """
        try:
            header = _read_header(content)
            tensors = load(content)
            if header["identity"] != json.loads(json.dumps(identity)):
                raise ArtifactError(
                    "snapshot: it belongs to a tuning of other data, settings or backbone; start over"
                )
            preparation = Preparation(**header["preparation"], probe_logits_BC=tensors.get(_PROBE_LOGITS))
            state = cls.start(_restore_prompt(header, tensors, identity, device), preparation)
            _restore_moments(state.optimizer, tensors)
            state.head_start_CF = tensors["head_start"].to(device)
            state.history = [EpochReport(**values) for values in header["history"]]
            state.spent_s = float(header["spent_s"])
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"snapshot: it is damaged ({error}); start over") from error
        return state


def _read_header(content: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(_read_metadata(content)[_HEADER])
    if (schema := header.pop("schema", _SCHEMA)) != _SCHEMA:
        raise ArtifactError(
            f"snapshot: schema: expected {_SCHEMA}, found {schema!r:.20}, of a later version of this "
            "program; start over, or update this program"
        )
    return header


def _read_metadata(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError("its metadata is no text by name")
    return metadata


def _restore_prompt(
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    identity: Mapping[str, Any],
    device: torch.device,
) -> Prompt:
    state = {
        key.removeprefix("prompt."): value for key, value in tensors.items() if key.startswith("prompt.")
    }
    prompt = Prompt(
        TuneConfig.from_dict(identity["config"]),
        level_starts=header["level_starts"],
        depth=state["gate"].numel(),
        prototypes_RD=state["prototypes"],
        num_classes=state["head.bias"].numel(),
        head_layers=header["head_layers"],
        num_tiles=header["num_tiles"],
    )
    prompt.load_state_dict(state)
    for name in _HEAD_SCALES:
        getattr(prompt, name).copy_(tensors[name])
    return prompt.to(device)


def _restore_moments(optimizer: torch.optim.AdamW, tensors: Mapping[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
