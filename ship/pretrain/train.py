"""The training loop: a pure function of its configuration, which a kill cannot spoil.

Owns the optimiser, the step and the checkpoint. All randomness is drawn from the seed and the step, so a
run that was killed and resumed computes the very numbers of one that was not.

Shapes: B images, N patches, T numbers a patch, F numbers an image, M kinds of content.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional

from ship.errors import ConfigError
from ship.pretrain.batches import BatchSource
from ship.pretrain.config import TrainConfig
from ship.pretrain.images import CONTENTS
from ship.pretrain.model import MaskedPretrainer, Predictions, build_vit, warm_start
from ship.pretrain.views import agreement_loss
from ship.vit import VisionTransformer

__all__ = ["Progress", "Trainer"]

_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run. The losses of patches and images are about the share of the targets'
    variance that is left unexplained; that of contents is a cross-entropy in nats a label.

    Times are the sums over all parts of a run that was resumed; CPU time is added up over cores.
    """

    step: int
    num_steps: int
    patch_loss: float
    image_loss: float
    content_loss: float
    view_loss: float
    cpu_s: float
    wall_s: float


class Trainer:
    """One run, stepped from outside.

    Args:
        config: Configuration of the run.
        device: Device that draws images and trains.
    """

    def __init__(self, config: TrainConfig, device: str | torch.device = "cpu") -> None:
        cpu_s, wall_s = time.process_time(), time.monotonic()
        self.config = config
        self.step = 0
        self.device = torch.device(device)
        self._batches = BatchSource(config, self.device)
        vit = build_vit(asdict(config.architecture), config.seed)
        warm_start(vit)
        scaling = self._batches.scaling
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            self._model = MaskedPretrainer(
                vit, len(scaling.mean_T), scaling.rotate_GF.shape[1], len(CONTENTS)
            )
        self._model.to(self.device)
        weights = list(self._model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [w for w in weights if w.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
        self.cpu_s = time.process_time() - cpu_s
        self.wall_s = time.monotonic() - wall_s

    @property
    def vit(self) -> VisionTransformer:
        """The network that is being trained."""
        return self._model.vit

    def run_step(self) -> Progress:
        """One optimiser step."""
        cpu_s, wall_s = time.process_time(), time.monotonic()
        config, batch = self.config, self._batches.batch(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16):
            said: Predictions = self._model(batch.x_BCHW, batch.visible_BV)
        patch_loss = functional.mse_loss(said.patches_BNT.float(), batch.target_BNT)
        image_loss = functional.mse_loss(said.images_BG.float(), batch.target_BF)
        loss = patch_loss + config.image_weight * image_loss
        # What has no weight has no gradient either, not even one of zeros: clipping would round otherwise.
        content_loss, view_loss = torch.zeros_like(patch_loss), torch.zeros_like(patch_loss)
        if config.content_weight:
            content_loss = functional.binary_cross_entropy_with_logits(
                said.contents_BM.float(), batch.contents_BM
            )
            loss = loss + config.content_weight * content_loss
        if config.view_weight:
            view_loss = agreement_loss(*said.compared_BZ.float().chunk(2))
            loss = loss + config.view_weight * view_loss
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        self.cpu_s += time.process_time() - cpu_s
        self.wall_s += time.monotonic() - wall_s
        return Progress(
            step=self.step,
            num_steps=config.num_steps,
            patch_loss=patch_loss.item(),
            image_loss=image_loss.item(),
            content_loss=content_loss.item(),
            view_loss=view_loss.item(),
            cpu_s=self.cpu_s,
            wall_s=self.wall_s,
        )

    def save(self, file: Path) -> None:
        """Write a checkpoint; whenever the process dies, the file is the old one or the new one."""
        tensors = {f"model.{name}": value for name, value in self._model.state_dict().items()}
        for name, weight in self._model.named_parameters():
            for key, value in self._optimizer.state[weight].items():
                tensors[f"optimizer.{key}.{name}"] = value
        notes = {
            "config": self.config.to_dict(),
            "step": self.step,
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        save_file(tensors, temporary, {"checkpoint": json.dumps(notes)})
        temporary.replace(file)

    @classmethod
    def resume(
        cls, file: Path, num_steps: int | None = None, device: str | torch.device = "cpu"
    ) -> "Trainer":
        """Go on from a checkpoint.

        Args:
            file: Written by ``save``.
            num_steps: Make the run longer or shorter.
            device: Device to go on with; on another one, images are drawn anew.

        Raises:
            ConfigError: The file is missing or is not one of ours.
        """
        notes, tensors = _read_checkpoint(file)
        config = TrainConfig.from_dict(notes["config"])
        trainer = cls(config if num_steps is None else config.with_steps(num_steps), device)
        trainer.step = notes["step"]
        trainer.cpu_s += notes["cpu_s"]
        trainer.wall_s += notes["wall_s"]
        model = trainer._model
        model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
        for name, weight in model.named_parameters():
            keys = {key: f"optimizer.{key}.{name}" for key in _OPTIMIZER_STATE}
            # No state yet, if the checkpoint was written before the first step.
            trainer._optimizer.state[weight] = {
                key: tensors[stored].to(trainer.device) for key, stored in keys.items() if stored in tensors
            }
        return trainer


def _read_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(file, "pt") as opened:
            notes = json.loads((opened.metadata() or {})["checkpoint"])
            return notes, {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{file}: expected a checkpoint of `python -m ship.pretrain` ({type(error).__name__}: {error}); "
            "remove it, or start without --resume in another folder"
        ) from error
