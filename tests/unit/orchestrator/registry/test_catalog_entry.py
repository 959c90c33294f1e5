"""A task's entry in the catalog names what can be served, and tries only what can be tried."""

import pytest

from orchestrator.registry.catalog_states import make_entry
from orchestrator.registry.versions import read_share
from orchestrator.store.documents.catalog import Canary, CatalogEntry
from orchestrator.store.documents.rollout import Aliases

A, B, C = "a" * 64, "b" * 64, "c" * 64


def entry(aliases: dict[str, int], share: str | None = None) -> CatalogEntry | None:
    """Entry of a task with versions 1 to 4, of which the last has no artifact."""
    digests = {1: A, 2: B, 3: C, 4: None}
    tags = {} if share is None else {"ship.canary_share": share}
    standing = Aliases(versions=aliases, share=read_share(aliases, tags))
    return make_entry(standing, {version: digests[version] for version in aliases.values()})


def test_every_version_with_an_alias_can_be_had() -> None:
    found = entry({"champion": 2, "previous": 1, "challenger": 3, "rc": 3, "theirs": 4})
    assert found == CatalogEntry(version=2, digest=B, others={1: A, 3: C})


def test_a_canary_and_a_shadow_are_in_the_catalog() -> None:
    found = entry({"champion": 1, "canary": 2, "shadow": 3}, share="0.25")
    assert found == CatalogEntry(
        version=1, digest=A, others={2: B, 3: C}, canary=Canary(version=2, share=0.25), shadow=3
    )


@pytest.mark.parametrize("share", [None, "", "much", "0", "1", "1.5", "-0.1", "nan", "inf"])
def test_a_canary_without_a_sound_share_takes_nothing(share: str | None) -> None:
    found = entry({"champion": 1, "canary": 2}, share)
    assert found == CatalogEntry(version=1, digest=A, others={2: B})


@pytest.mark.parametrize(
    "aliases", [{"champion": 1, "canary": 1, "shadow": 1}, {"champion": 1, "canary": 4, "shadow": 4}]
)
def test_a_champion_is_not_tried_and_neither_is_what_we_cannot_serve(aliases: dict[str, int]) -> None:
    assert entry(aliases, share="0.5") == CatalogEntry(version=1, digest=A)


@pytest.mark.parametrize("aliases", [{"challenger": 2, "canary": 1}, {"champion": 4, "canary": 1}])
def test_a_task_without_a_champion_of_ours_is_not_served(aliases: dict[str, int]) -> None:
    assert entry(aliases, share="0.5") is None
