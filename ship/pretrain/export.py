"""Writes and reads a backbone's folder, in the layout of ``timm.create_model("local-dir:...")``.

Owns the asset's files: ``config.json``, ``model.safetensors`` (float16), ``training.json``, ``probe.json``,
``README.md``. Each is replaced atomically.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ship.errors import BackboneError
from ship.pretrain.card import render_card
from ship.pretrain.config import Architecture
from ship.pretrain.model import BASE_ARCHITECTURE, build_vit
from ship.pretrain.probe import ProbeResult
from ship.pretrain.train import Trainer
from ship.vit import VisionTransformer

__all__ = ["export_backbone", "load_exported", "write_probe"]


def export_backbone(trainer: Trainer, folder: Path) -> None:
    """Write the weights, timm's configuration, and how they came about.

    Args:
        trainer: Trainer of the network.
        folder: Folder for the files.
    """
    state = {
        key: value.detach().to("cpu", torch.float16).contiguous()
        for key, value in trainer.vit.state_dict().items()
    }
    assert all(bool(value.isfinite().all()) for value in state.values()), "weights do not fit float16"
    config = trainer.config
    training = {
        "config": config.to_dict(),
        "images_seen": config.images_seen,
        "images_drawn": config.images_drawn,
        "cpu_s": round(trainer.cpu_s, 1),
        "wall_s": round(trainer.wall_s, 1),
        "device": trainer.device.type,
        "torch": torch.__version__,
    }
    _write(folder / "model.safetensors", save(state, {"format": "pt"}))
    _write(folder / "config.json", _to_json(_timm_config(config.architecture)))
    _write(folder / "training.json", _to_json(training))


def write_probe(results: Sequence[ProbeResult], seeds: Sequence[int], folder: Path) -> None:
    """Write ``probe.json``, and the card from it."""
    tasks = [asdict(result) for result in results]
    _write(folder / "probe.json", _to_json({"seeds": list(seeds), "tasks": tasks}))
    _write(folder / "README.md", render_card(folder).encode())


def load_exported(folder: Path, seed: int = 0) -> tuple[VisionTransformer, VisionTransformer]:
    """The network in a folder, and the same one untrained, both in eval mode.

    Raises:
        BackboneError: The folder does not hold a backbone of this recipe.
    """
    try:
        model_args = json.loads((folder / "config.json").read_text())["model_args"]
        state = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BackboneError(
            f"{folder}: expected config.json and model.safetensors of `python -m ship.pretrain --out` "
            f"({type(error).__name__}: {error})"
        ) from error
    trained, untrained = (build_vit(model_args, seed) for _ in range(2))
    trained.load_state_dict({key: value.float() for key, value in state.items()})
    return trained.eval(), untrained.eval()


def _timm_config(architecture: Architecture) -> dict[str, Any]:
    size = architecture.img_size
    preprocessing = {
        "input_size": [3, size, size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }
    return {
        "architecture": BASE_ARCHITECTURE,
        "num_classes": 0,
        "num_features": architecture.embed_dim,
        "global_pool": "token",
        "model_args": asdict(architecture),
        "pretrained_cfg": preprocessing,
    }


def _to_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(file)
