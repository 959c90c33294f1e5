"""A command's choices for a manifest: selection of tasks, limits and the pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.manifest.load import load_manifest
from orchestrator.manifest.model import Manifest, PoolSettings, RefusedTask
from orchestrator.manifest.selection import Selection

__all__ = ["Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A user's choices for a manifest.

    Attributes:
        selection: Selection of tasks.
        keep_going: Whether valid tasks run although others have problems.
        max_tasks: Most tasks to tune in one run; None takes the manifest's, else 1000.
        pool: Size and executor of the pool; a None takes the manifest's value.
        refused: Reasons, by task, not to tune it that do not come from the manifest.
        thumbnails: Whether small pictures of mistakes may be kept; False overrides the manifest.
    """

    selection: Selection = field(default_factory=Selection)
    keep_going: bool = False
    max_tasks: int | None = None
    pool: PoolSettings = field(default_factory=PoolSettings)
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    thumbnails: bool = True

    def load(self, path: str) -> Manifest:
        """The manifest with the selected tasks.

        Raises:
            ManifestError: Lists every problem of the manifest or of the selection.
        """
        manifest = self.selection.apply(load_manifest(path, keep_going=self.keep_going))
        late = [
            RefusedTask(name=task.name, reasons=self.refused[task.name], tags=task.tags)
            for task in manifest.tasks
            if task.name in self.refused
        ]
        return replace(
            manifest,
            tasks=tuple(
                replace(task, thumbnails=task.thumbnails and self.thumbnails)
                for task in manifest.tasks
                if task.name not in self.refused
            ),
            refused=(*manifest.refused, *late),
            pool=self.pool.over(manifest.pool),
        )
