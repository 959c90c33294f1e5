"""Where a command works in tests."""

from orchestrator.cli.output import Output
from orchestrator.registry.registry import Registry
from tests.unit.orchestrator.registry.factory import MemoryObjects, World

__all__ = ["WorldOutput"]


class WorldOutput(Output):
    """A command's surroundings, in memory."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def registry(self, *, may_create: bool = False) -> Registry:
        return self._world.fresh_registry()

    def objects(self) -> MemoryObjects:
        return self._world.objects.client()
