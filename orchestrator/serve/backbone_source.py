"""Origin of a serving backbone: plain values, from which each engine loads it on its own machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.serve.options import EngineOptions
from ship.backbone_spec import BUNDLED

if TYPE_CHECKING:
    from ship.backbone import Backbone

__all__ = ["BackboneSource"]

FOLDER = "backbones"


@dataclass(frozen=True, kw_only=True)
class BackboneSource:
    """A spec with the size of the input, and this machine's cache of loaded backbones.

    Attributes:
        spec: See ``ship.backbone_spec``; a path is absolute and there on each machine that has engines.
        image_size: Height and width of the input in pixels; None for the backbone's own.
        cache: Folder of the cache; None keeps none, and each engine has weights of its own.
        cache_bytes: The most that backbones may take there.
    """

    spec: str = BUNDLED
    image_size: int | None = None
    cache: str | None = None
    cache_bytes: int = 0

    @classmethod
    def of(cls, spec: str, image_size: int | None, options: EngineOptions) -> "BackboneSource":
        """The source of a spec, with the cache of an engine's options."""
        return cls(spec=spec, image_size=image_size, cache=options.cache, cache_bytes=options.cache_bytes)

    def load(self) -> "Backbone":
        """The backbone on the CPU; engines of one machine share its memory.

        Raises:
            BackboneError: It is unknown, cannot be read, or is of a kind that is not supported exactly.
        """
        # Ingress and launcher hold a source too, and need no torch for it.
        from orchestrator.serve.engine.shared_weights import WeightsCache
        from ship.backbone import load_backbone

        if self.cache is None or not self.cache_bytes:
            return load_backbone(self.spec, image_size=self.image_size)
        cache = WeightsCache(Path(self.cache).expanduser() / FOLDER, self.cache_bytes)
        return cache.load(self.spec, self.image_size)
