"""LoRA classifiers of many tasks on one timm backbone: their files, the models of the servers, a reference.

Nothing here is SHIP's but the import of timm: a server's process loads torch, timm, PEFT and Pillow.

Shapes: B batch, T tasks, C classes, D width, H and W pixels.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ship.vit import timm

__all__ = [
    "NUM_CLASSES",
    "RANK",
    "Classifier",
    "MergedTask",
    "MixedTasks",
    "Pictures",
    "fit_merged",
    "open_tasks",
    "reference_answers",
    "write_adapters",
]

RANK, NUM_CLASSES = 8, 4
# Merged models of all tasks take at most this much; else they share one backbone.
MERGED_BYTES = 2 << 30
_HEAD_STD = 0.1
_PREFIX = "base_model.model."
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Classifier(Protocol):
    """A model of one or more tasks."""

    def answer(self, pixels: Sequence[np.ndarray], tasks: Sequence[str]) -> list[dict[str, Any]]:
        """An answer to each picture ``H,W,3`` by its own task, as it goes to the client."""


def write_adapters(folder: Path, tasks: Sequence[str], seed: int = 0) -> None:
    """Write random adapters and heads in PEFT's own layout beside ``folder/backbone``.

    Adapters of rank 8 on each block's queries, keys and values.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    vit, _ = _load_timm(folder)
    # Random values of both matrices: with PEFT's usual start an adapter changes nothing.
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["qkv"], init_lora_weights=False)
    for task in tasks:
        model = get_peft_model(vit, config, adapter_name="default")
        model.save_pretrained(str(folder / "adapters" / task))
        vit = model.unload()
    heads_TCD = torch.randn(len(tasks), NUM_CLASSES, vit.num_features) * _HEAD_STD
    save_file({task: head.clone() for task, head in zip(tasks, heads_TCD, strict=True)}, folder / "heads")


class Pictures:
    """Decoder of image files, and normalisation, as the backbone's own configuration in timm says."""

    def __init__(self, config: dict[str, Any]) -> None:
        _, height, width = config["input_size"]
        self._size, self._filter = (width, height), _FILTERS[config["interpolation"]]
        self._mean_3HW = torch.tensor(config["mean"]).view(3, 1, 1) * 255
        self._std_3HW = torch.tensor(config["std"]).view(3, 1, 1) * 255

    def decode(self, content: bytes) -> np.ndarray:
        """Pixels ``H,W,3``, uint8; thread-safe."""
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB").resize(self._size, self._filter))

    def to_rows(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """Normalised rows ``B,3,H,W``."""
        rows_B3HW = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
        return rows_B3HW.sub_(self._mean_3HW).div_(self._std_3HW)


class MergedTask:
    """One task whose adapter is merged into a backbone of its own: as fast as the bare backbone.

    PEFT, LoRA guide, "Merge LoRA weights into the base model": ``merge_and_unload`` for no overhead.
    """

    def __init__(self, folder: Path, task: str) -> None:
        from peft import PeftModel

        vit, self.pictures = _load_timm(folder)
        model = PeftModel.from_pretrained(vit, str(folder / "adapters" / task))
        self._vit = model.merge_and_unload().eval()
        self._head_CD = load_file(folder / "heads")[task]

    @torch.inference_mode()
    def answer(self, pixels: Sequence[np.ndarray], tasks: Sequence[str]) -> list[dict[str, Any]]:
        """See ``Classifier``."""
        features_BD = self._vit(self.pictures.to_rows(pixels))
        return _to_answers(features_BD @ self._head_CD.T, tasks)


class MixedTasks:
    """All tasks on one backbone; a batch is of any tasks. One thread at a time.

    PEFT, LoRA guide, "Inference with different LoRA adapters in the same batch": ``adapter_names``. The heads
    are gathered from one tensor, which is faster than the guide's ``modules_to_save``.
    """

    def __init__(self, folder: Path, tasks: Sequence[str]) -> None:
        from peft import PeftModel

        vit, self.pictures = _load_timm(folder)
        adapters = folder / "adapters"
        self._model = PeftModel.from_pretrained(vit, str(adapters / tasks[0]), adapter_name=tasks[0])
        for task in tasks[1:]:
            # PEFT: "speeds up the loading process".
            self._model.load_adapter(str(adapters / task), adapter_name=task, low_cpu_mem_usage=True)
        self._model.eval()
        heads = load_file(folder / "heads")
        self._heads_TCD = torch.stack([heads[task] for task in tasks])
        self._places = {task: place for place, task in enumerate(tasks)}

    @torch.inference_mode()
    def answer(self, pixels: Sequence[np.ndarray], tasks: Sequence[str]) -> list[dict[str, Any]]:
        """See ``Classifier``."""
        features_BD = self._model(self.pictures.to_rows(pixels), adapter_names=list(tasks))
        heads_BCD = self._heads_TCD[[self._places[task] for task in tasks]]
        return _to_answers((heads_BCD @ features_BD.unsqueeze(-1)).squeeze(-1), tasks)


def open_tasks(folder: Path, tasks: Sequence[str], num_threads: int) -> MergedTask | MixedTasks:
    """The fastest model for these tasks in one process: a single task is merged."""
    torch.set_num_threads(num_threads)
    return MergedTask(folder, tasks[0]) if len(tasks) == 1 else MixedTasks(folder, tasks)


def fit_merged(folder: Path, num_tasks: int) -> bool:
    """Whether merged models of all tasks fit into ``MERGED_BYTES``."""
    return num_tasks * (folder / "backbone" / "model.safetensors").stat().st_size <= MERGED_BYTES


def reference_answers(
    folder: Path, tasks: Sequence[str], contents: Sequence[bytes]
) -> dict[tuple[str, bytes], dict[str, float]]:
    """Probabilities by task and image file, by timm alone on weights that are added up by hand."""
    vit, pictures = _load_timm(folder)
    bare = {name: weight.clone() for name, weight in vit.state_dict().items()}
    heads = load_file(folder / "heads")
    rows_B3HW = pictures.to_rows([pictures.decode(content) for content in contents])
    found = {}
    for task in tasks:
        lora = load_file(folder / "adapters" / task / "adapter_model.safetensors")
        for name in {key.removeprefix(_PREFIX).split(".lora_")[0] for key in lora}:
            down, up = (lora[f"{_PREFIX}{name}.lora_{part}.weight"] for part in "AB")
            # lora_alpha is the rank, so that the scale is 1.
            vit.get_submodule(name).weight.data = bare[f"{name}.weight"] + up @ down
        with torch.inference_mode():
            answers = _to_answers(vit(rows_B3HW) @ heads[task].T, [task] * len(contents))
        for content, answer in zip(contents, answers, strict=True):
            found[task, content] = answer["probabilities"]
    return found


def _to_answers(logits_BC: Tensor, tasks: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"task": task, "probabilities": {f"class-{label}": value for label, value in enumerate(row)}}
        for task, row in zip(tasks, logits_BC.softmax(dim=-1).tolist(), strict=True)
    ]


def _load_timm(folder: Path) -> tuple[nn.Module, Pictures]:
    config = json.loads((folder / "backbone" / "config.json").read_text())
    vit = timm.create_model(
        config["architecture"],
        pretrained=False,
        num_classes=0,
        pretrained_cfg_overlay=config["pretrained_cfg"],
        **config["model_args"],
    )
    vit.load_state_dict(load_file(folder / "backbone" / "model.safetensors"))
    return vit.eval(), Pictures(timm.data.resolve_data_config({}, model=vit))
