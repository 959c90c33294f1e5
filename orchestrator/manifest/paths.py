"""Resolution of a manifest's paths, which are relative to its folder."""

import os
from dataclasses import dataclass
from typing import Self

__all__ = ["PathResolver"]


@dataclass(frozen=True, kw_only=True)
class PathResolver:
    """Makes relative paths absolute.

    Attributes:
        base: The manifest's folder, absolute or a URL.
    """

    base: str

    @classmethod
    def of(cls, manifest_path: str) -> Self:
        """The resolver of a manifest's paths."""
        is_remote = "://" in manifest_path
        folder = (
            manifest_path.rpartition("/")[0] if is_remote else os.path.dirname(os.path.abspath(manifest_path))
        )
        return cls(base=folder)

    def resolve(self, path: str) -> str:
        """An absolute path, or a URL."""
        expanded = os.path.expanduser(path)
        if "://" in expanded or os.path.isabs(expanded):
            return expanded
        if "://" in self.base:
            return f"{self.base}/{os.path.normpath(expanded)}"
        return os.path.normpath(os.path.join(self.base, expanded))

    def backbone(self, spec: str) -> str:
        """A backbone's path or timm name; names have no slash, except with a scheme (`hf-hub:owner/name`)."""
        return self.resolve(spec) if "/" in spec and ":" not in spec else spec
