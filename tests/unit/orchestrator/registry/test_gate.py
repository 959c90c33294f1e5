import math

import pytest

from orchestrator.registry.gate import decide

CHAMPION = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.95, "probe_accuracy": 0.8}


def test_the_first_version_that_beats_the_probe_is_champion() -> None:
    decision = decide({"accuracy": 0.9, "probe_accuracy": 0.8}, None)

    assert decision.alias == "champion"
    assert "0.9000 beats the linear probe's 0.8000" in decision.reason


def test_a_tie_with_the_probe_passes_and_says_so() -> None:
    decision = decide({"accuracy": 0.8, "probe_accuracy": 0.8}, None)

    assert decision.promote
    assert "ties with the linear probe" in decision.reason


def test_below_the_probe_stays_challenger() -> None:
    decision = decide({"accuracy": 0.79, "probe_accuracy": 0.8}, None)

    assert decision.alias == "challenger"
    assert "0.7900 is below the linear probe's 0.8000" in decision.reason


@pytest.mark.parametrize(
    ("accuracy", "relation"),
    [
        (0.95, "is better than"),
        (0.9, "ties with today's"),
        (0.86, "is no worse than"),
        (0.85, "is no worse than"),
    ],
)
def test_no_worse_than_the_champion_passes(accuracy: float, relation: str) -> None:
    decision = decide({"accuracy": accuracy, "probe_accuracy": 0.8}, CHAMPION)

    assert decision.promote
    assert relation in decision.reason
    assert "0.9000, 95% interval from 0.8500" in decision.reason


def test_worse_than_the_champions_interval_stays_challenger() -> None:
    decision = decide({"accuracy": 0.849, "probe_accuracy": 0.8}, CHAMPION)

    assert not decision.promote
    assert "but is worse than today's champion" in decision.reason


@pytest.mark.parametrize("accuracy", [0.9, 0.81])
def test_other_data_is_said(accuracy: float) -> None:
    candidate = {"accuracy": accuracy, "probe_accuracy": 0.8}

    assert "measured on other data" in decide(candidate, CHAMPION, same_data=False).reason
    assert "other data" not in decide(candidate, CHAMPION).reason


@pytest.mark.parametrize(
    "candidate",
    [
        {},
        {"accuracy": 0.9},
        {"probe_accuracy": 0.1},
        {"accuracy": math.nan, "probe_accuracy": 0.1},
        {"accuracy": 0.9, "probe_accuracy": math.nan},
        {"accuracy": math.inf, "probe_accuracy": 0.1},
        {"accuracy": True, "probe_accuracy": 0.1},
    ],
)
@pytest.mark.parametrize("champion", [None, CHAMPION])
def test_what_is_not_known_never_promotes(
    candidate: dict[str, float], champion: dict[str, float] | None
) -> None:
    decision = decide(candidate, champion)

    assert not decision.promote
    assert "not known" in decision.reason


@pytest.mark.parametrize("champion", [{}, {"accuracy": 0.9}, {"accuracy": math.nan, "accuracy_low": 0.1}])
def test_a_champion_without_numbers_is_replaced_by_hand_only(champion: dict[str, float]) -> None:
    decision = decide({"accuracy": 0.9, "probe_accuracy": 0.8}, champion)

    assert not decision.promote
    assert "promote by hand" in decision.reason
