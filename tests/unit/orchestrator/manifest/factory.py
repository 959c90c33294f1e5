"""Manifests from their text."""

from pathlib import Path

import pytest

from orchestrator.errors import ManifestError
from orchestrator.manifest.load import load_manifest
from orchestrator.manifest.model import Manifest

__all__ = ["load", "problems_of"]


def load(folder: Path, text: str, *, keep_going: bool = False) -> Manifest:
    path = folder / "manifest.yaml"
    path.write_text(text, encoding="utf-8")
    return load_manifest(str(path), keep_going=keep_going)


def problems_of(folder: Path, text: str, *, keep_going: bool = False) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(folder, text, keep_going=keep_going)
    return list(caught.value.problems)
