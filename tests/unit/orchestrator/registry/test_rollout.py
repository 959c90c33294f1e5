"""States that a poller may see between the steps of a change, on a registry of aliases and tags alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.rollout import Rollouts, make_entry
from orchestrator.store.catalog import Canary
from tests.unit.orchestrator.store.factory import make_key

DIGESTS = {version: make_key(str(version)) for version in (1, 2, 3)}


class Registry:
    """One task with three versions, the first of which is champion; notes the canary after each write."""

    def __init__(self) -> None:
        self.aliases, self.tags = {"champion": 1}, {}
        self.seen: list[Canary | None] = []
        self.session = SimpleNamespace(
            client=SimpleNamespace(set_registered_model_tag=self._set_tag), errors=self._errors
        )

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        yield

    def _set_tag(self, name: str, key: str, value: str) -> None:
        self.tags[key] = value
        self._look()

    def _look(self) -> None:
        self.seen.append(make_entry(self.aliases, self.tags, DIGESTS).canary)

    def aliases_and_tags(self, task: str) -> tuple[dict[str, int], dict[str, str]]:
        return dict(self.aliases), dict(self.tags)

    def version(self, task: str, version: int) -> SimpleNamespace:
        return SimpleNamespace(digest=DIGESTS[version])

    def set_alias(self, task: str, alias: str, version: int) -> None:
        self.aliases[alias] = version
        self._look()

    def end_trial(self, task: str, alias: str) -> None:
        del self.aliases[alias]
        self._look()


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_there_is_a_canary_at_every_moment_of_a_change(registry: Registry) -> None:
    rollouts = Rollouts(registry)
    rollouts.start_canary("bolts", 2, 0.9)
    registry.seen.clear()

    rollouts.start_canary("bolts", 3, 0.1)

    assert None not in registry.seen
    assert {canary.share for canary in registry.seen if canary.version == 3} == {0.1}
    assert rollouts.read("bolts").canary == Canary(version=3, share=0.1)


def test_a_canary_ended_by_number_ends_no_other(registry: Registry) -> None:
    rollouts = Rollouts(registry)
    rollouts.start_canary("bolts", 2, 0.5)

    with pytest.raises(RegistryError, match="is version 2, not 3: nothing was changed; `ship canary bolts"):
        rollouts.stop_canary("bolts", 3)

    assert rollouts.read("bolts").canary == Canary(version=2, share=0.5)
    rollouts.stop_canary("bolts", 2)
    assert rollouts.read("bolts").canary is None
    assert rollouts.stop_canary("bolts", 3).canary is None, "there is none to be ended"


def test_without_a_number_whichever_there_is_ends(registry: Registry) -> None:
    rollouts = Rollouts(registry)
    rollouts.start_canary("bolts", 3, 0.5)

    assert rollouts.stop_canary("bolts").canary == Canary(version=3, share=0.5)
    assert "canary" not in registry.aliases
