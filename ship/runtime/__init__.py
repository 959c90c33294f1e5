"""Inference with baked prompts: one forward pass for rows of any tasks."""

from typing import TYPE_CHECKING

from ship.lazy import lazy_names

if TYPE_CHECKING:
    from ship.runtime.runtime import Runtime

__all__ = ["Runtime"]

__getattr__ = lazy_names(__name__, {"Runtime": "runtime"})
