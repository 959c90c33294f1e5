"""A tuned prompt as files: written, read strictly, and checked before it serves."""

from typing import TYPE_CHECKING

from ship.lazy import lazy_names

if TYPE_CHECKING:
    from ship.artifact.files import LoadedPrompt, load, load_files, save
    from ship.artifact.making import make_artifact

__all__ = ["LoadedPrompt", "load", "load_files", "make_artifact", "save"]

__getattr__ = lazy_names(__name__, {**dict.fromkeys(__all__, "files"), "make_artifact": "making"})
