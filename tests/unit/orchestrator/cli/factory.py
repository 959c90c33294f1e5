"""Where a command works in tests."""

import json
from typing import Any

from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.cli.output import Output
from orchestrator.registry.registry import Registry
from tests.unit.orchestrator.registry.factory import MemoryObjects, World

__all__ = ["Shell", "WorldOutput"]


class WorldOutput(Output):
    """A command's surroundings, in memory."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def registry(self, *, may_create: bool = False) -> Registry:
        return self._world.fresh_registry()

    def objects(self) -> MemoryObjects:
        return self._world.objects.client()


class Shell:
    """Runs ``ship`` on a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(self, *arguments: str) -> Result:
        """What came of a command."""
        return CliRunner().invoke(cli, arguments, obj=WorldOutput(self.world))

    def __call__(self, *arguments: str) -> str:
        """Standard output of a command that succeeds."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """What it prints with ``--json``."""
        return json.loads(self(*arguments, "--json"))
