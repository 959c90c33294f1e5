"""Names of backbones: what a spec means, without loading it.

A spec is ``bundled``; a timm model name (``vit_base_patch16_224.augreg_in21k``); ``hf-hub:OWNER/NAME``, a
repository of the Hugging Face hub; a folder with timm's ``config.json`` and ``model.safetensors``; or
``NAME:FILE.safetensors``, weights for a timm name.
"""

import os
from pathlib import Path

__all__ = ["BUNDLED", "BUNDLED_FOLDER", "absolute", "files_of", "hub_name", "is_folder", "split_weights"]

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parent / "assets" / "bundled"
_FOLDER_FILES = ("config.json", "model.safetensors")
_HUB = ("hf_hub:", "hf-hub:")


def hub_name(spec: str) -> str | None:
    """The repository of ``hf-hub:OWNER/NAME``, with its revision if there is one; None for any other spec."""
    return spec.partition(":")[2] if spec.startswith(_HUB) else None


def split_weights(spec: str) -> tuple[str, Path] | None:
    """The timm name and the file of ``NAME:FILE.safetensors``; None for any other spec."""
    name, _, file = spec.partition(":")
    return (name, Path(file)) if file.endswith(".safetensors") and not spec.startswith(_HUB) else None


def is_folder(spec: str) -> bool:
    """Whether a spec names a folder by its path."""
    return not spec.startswith(_HUB) and ("/" in spec or spec.startswith((".", "~")))


def files_of(spec: str) -> tuple[Path, ...]:
    """Files of this machine that a spec names, whether they are there or not; none for a timm name."""
    if spec == BUNDLED:
        return tuple(BUNDLED_FOLDER / name for name in _FOLDER_FILES)
    if (weights := split_weights(spec)) is not None:
        return (weights[1],)
    if is_folder(spec):
        return tuple(Path(spec).expanduser() / name for name in _FOLDER_FILES)
    return ()


def absolute(spec: str) -> str:
    """The same spec for a process with another working folder."""
    if (weights := split_weights(spec)) is not None:
        return f"{weights[0]}:{os.path.abspath(weights[1])}"
    return os.path.abspath(Path(spec).expanduser()) if is_folder(spec) else spec
