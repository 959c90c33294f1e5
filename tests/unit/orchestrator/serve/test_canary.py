"""A key stays with its version, and a canary gets the share that it was given."""

import pytest

from orchestrator.serve.canary import choose_version
from orchestrator.store.catalog import Canary, CatalogEntry

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
    return {key for key in KEYS if choose_version(task, given, key, draw=0.5) != given.version}


def test_without_a_canary_the_champion_answers():
    alone = CatalogEntry(version=7, digest="a" * 64, others={2: "b" * 64})
    assert {choose_version("bolts", alone, key, draw) for key in (None, "a") for draw in (0.0, 0.99)} == {7}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_canary_gets_its_share_of_keys(share: float):
    # Five standard deviations of a share of so many keys.
    tolerance = 5 * (share * (1 - share) / len(KEYS)) ** 0.5
    assert len(chosen("bolts", entry(share))) / len(KEYS) == pytest.approx(share, abs=tolerance)


def test_a_key_stays_where_it_is_whatever_is_drawn():
    given = entry(0.5)
    for key in KEYS[:200]:
        assert len({choose_version("bolts", given, key, draw) for draw in (0.0, 0.3, 0.7, 0.99)}) == 1


def test_keys_stay_with_the_canary_when_its_share_rises():
    assert chosen("bolts", entry(0.1)) < chosen("bolts", entry(0.3))


def test_what_a_key_gets_never_changes_between_releases():
    assert [key for key in KEYS[:40] if choose_version("bolts", entry(0.1), key, 0.5) == 2] == FIRST


@pytest.mark.parametrize(("task", "canary"), [("nuts", 2), ("bolts", 3)])
def test_tasks_and_canaries_draw_independently(task: str, canary: int):
    one, other = chosen("bolts", entry(0.5)), chosen(task, entry(0.5, canary))
    # Half of the keys of one: five standard deviations.
    assert len(one & other) / len(KEYS) == pytest.approx(0.25, abs=0.016)


def test_without_a_key_the_draw_decides():
    given = entry(0.25)
    drawn = [choose_version("bolts", given, None, number / 1000) for number in range(1000)]
    assert drawn == [2] * 250 + [1] * 750


def test_a_key_may_hold_anything():
    for key in ("", "\n2\n", "\udcff", "ключ" * 1000):
        assert choose_version("bolts", entry(0.5), key, 0.0) in (1, 2)
