"""Small image data sets on disk."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def png_bytes(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(seed))
    return path


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a small PNG of noise."""
    return write


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One tree of two classes, ten images each, no splits."""
    root = tmp_path / "tree"
    for index, label in enumerate(("ok", "scratch mark ü")):
        for number in range(10):
            write(root / label / f"{number}.png", seed=index * 100 + number)
    return root


@pytest.fixture
def split_tree(tmp_path: Path) -> Path:
    """``train`` and ``test`` of two classes."""
    root = tmp_path / "split"
    for split, count in (("train", 3), ("test", 2)):
        for label in ("cat", "dog"):
            for number in range(count):
                write(root / split / label / f"{number}.png", seed=len(split) * 100 + ord(label[0]) + number)
    return root
