"""What all servers of a comparison answer from: backbone, tasks of theirs and ours, pictures, references."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from orchestrator.settings import Settings
from ship.backbone import Backbone, load_backbone
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from tests.benchmarks.serve.load import Check
from tests.benchmarks.serve.peers.adapters import NUM_CLASSES, RANK, reference_answers, write_adapters
from tests.benchmarks.serve.plant import ServePlant, draw_jpeg
from tests.benchmarks.synthetic import default_k, find_backbone, make_prompt
from tests.unit.orchestrator.serve.factory import make_labels

__all__ = ["References", "Scene", "is_right", "open_scene", "write_backbone_folder"]

# Sums of float32 differ in their last bits with the size of the batch.
TOLERANCE = 2e-3

# What presets tune, and what the others have.
_OURS = {"kind": "lora", "rank": RANK, "num_attribute": 0}
# Probabilities by task and image file.
References = Mapping[tuple[str, bytes], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Files and references of a comparison.

    Attributes:
        folder: ``backbone``, ``adapters`` and ``heads`` of the others; ``home`` and ``cache`` of ours.
        tasks: Names of the tasks.
        contents: Image files that are asked about.
        theirs: Right answers of the LoRA classifiers.
        ours: Right answers of SHIP's low ranks.
    """

    folder: Path
    tasks: tuple[str, ...]
    contents: tuple[bytes, ...]
    theirs: References
    ours: References


@contextmanager
def open_scene(name: str, num_tasks: int, num_pictures: int, *, is_published: bool = True) -> Iterator[Scene]:
    """Prepare everything in a temporary folder.

    Args:
        name: Backbone, see ``find_backbone``.
        num_tasks: Tasks.
        num_pictures: Pictures of 640 by 480.
        is_published: Whether ours has a store and a registry to serve from.
    """
    with TemporaryDirectory(prefix="ship-peers-") as place:
        folder, began_s = Path(place), time.monotonic()
        write_backbone_folder(find_backbone(name, torch.device("cpu")), folder / "backbone")
        backbone = load_backbone(str(folder / "backbone"))
        tasks = tuple(f"line-{number:04d}" for number in range(num_tasks))
        if is_published:
            _publish(folder, name, backbone, tasks)
        write_adapters(folder, tasks)
        contents = tuple(draw_jpeg(seed) for seed in range(num_pictures))
        scene = Scene(
            folder=folder,
            tasks=tasks,
            contents=contents,
            theirs=reference_answers(folder, tasks, contents),
            ours=_answer_with_prompts(backbone, default_k(name), tasks, contents),
        )
        seconds = time.monotonic() - began_s
        print(f"prepared {name}, {num_tasks} tasks, in {seconds:.0f} s", file=sys.stderr, flush=True)
        yield scene


def _publish(folder: Path, name: str, backbone: Backbone, tasks: tuple[str, ...]) -> None:
    settings = Settings.from_env({"SHIP_CACHE": str(folder / "cache")}, home=str(folder / "home"))
    plant = ServePlant(name=name, backbone=backbone, settings=settings, adapters=_OURS)
    plant.add_tasks(len(tasks))
    assert tuple(plant.tasks) == tasks


def write_backbone_folder(backbone: Backbone, folder: Path) -> None:
    """Write a backbone in timm's own layout, from which every server loads the same weights."""
    info = backbone.info
    folder.mkdir(parents=True)
    config = {
        "architecture": info.architecture,
        "num_classes": 0,
        "model_args": info.model_args,
        "pretrained_cfg": {
            "mean": info.mean,
            "std": info.std,
            "interpolation": info.interpolation,
            "input_size": (3, *info.image_size),
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = {name: weight.contiguous() for name, weight in backbone.vit.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def is_right(task: str, expected: Mapping[str, float], tolerance: float = TOLERANCE) -> Check:
    """A check of a reply against a reference."""

    def check(reply: Mapping[str, object], _: Mapping[str, str]) -> bool:
        found = reply["probabilities"]
        return (
            reply["task"] == task
            and isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(abs(found[label] - value) <= tolerance for label, value in expected.items())
        )

    return check


def _answer_with_prompts(
    backbone: Backbone, num_independent: int, tasks: tuple[str, ...], contents: tuple[bytes, ...]
) -> References:
    runtime, found = Runtime(backbone), {}
    size, interpolation = backbone.image_size, backbone.interpolation
    images = torch.stack([decode_image(each, size=size, interpolation=interpolation) for each in contents])
    for seed, task in enumerate(tasks):
        prompt = make_prompt(backbone, seed, num_independent, NUM_CLASSES, **_OURS).requires_grad_(False)
        slot, labels = runtime.insert(prompt), make_labels(task, NUM_CLASSES, seed)
        for content, logits_C in zip(contents, runtime.infer(images, [slot] * len(contents)), strict=True):
            found[task, content] = dict(zip(labels, logits_C.softmax(dim=-1).tolist(), strict=True))
    return found
