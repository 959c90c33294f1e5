"""Origin of a serving backbone: plain values, from which each engine loads it on its own machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.serve.options import EngineOptions
from orchestrator.store.backbones import load_backbone_of
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
        store: URL of the store, for a spec ``store:FINGERPRINT``.
        cache: Folder of the cache; None keeps none, and each engine has weights of its own.
        cache_bytes: The most that backbones may take there.
    """

    spec: str = BUNDLED
    image_size: int | None = None
    store: str | None = None
    cache: str | None = None
    cache_bytes: int = 0

    @classmethod
    def of(
        cls, spec: str, image_size: int | None, options: EngineOptions, store: str | None = None
    ) -> "BackboneSource":
        """The source of a spec, with the cache of an engine's options."""
        cache, cache_bytes = options.cache, options.cache_bytes
        return cls(spec=spec, image_size=image_size, store=store, cache=cache, cache_bytes=cache_bytes)

    def load(self) -> "Backbone":
        """The backbone on the CPU; engines of one machine share its memory.

        Raises:
            BackboneError: It is unknown, cannot be read, or is of a kind that is not supported exactly.
            StoreError: It is not kept here, and the store cannot be read or does not hold it.
        """
        # Ingress and launcher hold a source too, and need no torch for it.
        from orchestrator.serve.engine.shared_weights import WeightsCache

        if self.cache is None or not self.cache_bytes:
            return load_backbone_of(self.spec, self.store, image_size=self.image_size)
        cache = WeightsCache(Path(self.cache).expanduser() / FOLDER, self.cache_bytes, self.store)
        return cache.load(self.spec, self.image_size)
