"""Fleets: tasks of random images, each in its own folder, with one manifest.

Knows nothing of measurements. Task n of a fleet is the same in every run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from orchestrator.manifest.load import load_manifest
from orchestrator.manifest.model import Manifest
from orchestrator.settings import Settings
from tests.factories import write_backbone

__all__ = ["MANIFEST", "Fleet", "fleet_settings", "read_fleet", "write_fleet"]

MANIFEST = "fleet.yaml"

CLASSES = ("good", "bad")


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Description of a fleet.

    Attributes:
        num_tasks: Number of tasks.
        num_train: Training images a class.
        num_test: Held-out images a class.
        side: Width and height of an image in pixels.
        backbone: ``tiny``, or a backbone as in a manifest.
        settings: Settings of all tasks, as in ``defaults``.
        is_listed: The manifest lists the tasks in place of a pattern of folders.
    """

    num_tasks: int
    num_train: int = 4
    num_test: int = 2
    side: int = 32
    backbone: str = "bundled"
    settings: dict[str, Any]
    is_listed: bool = False


def write_fleet(folder: Path, fleet: Fleet) -> Path:
    """Write images and manifest; returns the manifest's path."""
    for number in range(fleet.num_tasks):
        _write_images(folder / "data" / _name(number), fleet, number)
    if fleet.backbone == "tiny":
        write_backbone(folder / "backbone")
    manifest: dict[str, Any] = {
        "backbone": "./backbone" if fleet.backbone == "tiny" else fleet.backbone,
        "max_tasks": fleet.num_tasks,
        "defaults": fleet.settings,
    }
    if fleet.is_listed:
        names = [_name(number) for number in range(fleet.num_tasks)]
        manifest["tasks"] = [{"name": name, "data": f"data/{name}"} for name in names]
    else:
        manifest["tasks_from"] = "data/*"
    path = folder / MANIFEST
    path.write_text(yaml.safe_dump(manifest))
    return path


def read_fleet(folder: Path) -> Manifest:
    """The manifest in ``folder``."""
    return load_manifest(str(folder / MANIFEST))


def fleet_settings(folder: Path, store: str | None = None) -> Settings:
    """Settings that keep everything in the folder, whatever the environment says."""
    return Settings.from_env({"SHIP_CACHE": str(folder / "cache")}, home=str(folder / "home"), store=store)


def _write_images(folder: Path, fleet: Fleet, number: int) -> None:
    generator = np.random.default_rng(number)
    for split, num_images in (("train", fleet.num_train), ("test", fleet.num_test)):
        for label, name in enumerate(CLASSES):
            target = folder / split / name
            target.mkdir(parents=True)
            shape = (num_images, fleet.side, fleet.side, 3)
            pixels_BHWC = generator.integers(0, 128, shape, dtype=np.uint8) + np.uint8(64 * label)
            for index, pixels_HWC in enumerate(pixels_BHWC):
                # Uncompressed, which is fastest.
                Image.fromarray(pixels_HWC).save(target / f"{index}.bmp")


def _name(number: int) -> str:
    return f"task-{number:05d}"
