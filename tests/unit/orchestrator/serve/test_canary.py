"""A key stays with its version, and a canary gets the share that it was given."""

import numpy as np
import pytest

from orchestrator.serve.canary import choose_version, key_of_content
from orchestrator.store.documents.catalog import Canary, CatalogEntry

KEYS = [f"line-{number}" for number in range(20_000)]
FIRST = ["line-11", "line-15", "line-16"]


def entry(share: float, canary: int = 2) -> CatalogEntry:
    return CatalogEntry(
        version=1,
        digest="a" * 64,
        others={canary: "b" * 64},
        canary=Canary(version=canary, share=share),
    )


def chosen(task: str, given: CatalogEntry) -> set[str]:
    """Keys that get the canary."""
    return {key for key in KEYS if choose_version(task, given, key) != given.version}


def test_without_a_canary_the_champion_answers():
    alone = CatalogEntry(version=7, digest="a" * 64, others={2: "b" * 64})
    assert {choose_version("bolts", alone, key) for key in (None, "a")} == {7}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_canary_gets_its_share_of_keys(share: float):
    # Five standard deviations of a share of so many keys.
    tolerance = 5 * (share * (1 - share) / len(KEYS)) ** 0.5
    assert len(chosen("bolts", entry(share))) / len(KEYS) == pytest.approx(share, abs=tolerance)


def test_keys_stay_with_the_canary_when_its_share_rises():
    assert chosen("bolts", entry(0.1)) < chosen("bolts", entry(0.3))


def test_what_a_key_gets_never_changes_between_releases():
    assert [key for key in KEYS[:40] if choose_version("bolts", entry(0.1), key) == 2] == FIRST


@pytest.mark.parametrize(("task", "canary"), [("nuts", 2), ("bolts", 3)])
def test_tasks_and_canaries_draw_independently(task: str, canary: int):
    one, other = chosen("bolts", entry(0.5)), chosen(task, entry(0.5, canary))
    # Half of the keys of one: five standard deviations.
    assert len(one & other) / len(KEYS) == pytest.approx(0.25, abs=0.016)


def test_without_a_key_the_champion_answers():
    assert choose_version("bolts", entry(0.99), None) == 1


def test_one_image_is_one_key_however_it_lies_in_memory():
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    assert key_of_content(image) == key_of_content(np.asfortranarray(image))
    assert key_of_content(image) != key_of_content(image ^ 1)


def test_a_key_may_hold_anything():
    for key in ("", "\n2\n", "\udcff", "ключ" * 1000):
        assert choose_version("bolts", entry(0.5), key) in (1, 2)
