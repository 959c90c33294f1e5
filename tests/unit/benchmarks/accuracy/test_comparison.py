"""Settings are chosen by validation, beyond the grid where its edge wins; seeds only repeat the training."""

from typing import Any

import pytest

from ship.backbone import Backbone
from tests.benchmarks.accuracy.comparison import Protocol, measure
from tests.benchmarks.accuracy.methods import METHODS, Effort, Fit
from tests.benchmarks.accuracy.suites import find_problem

PROTOCOL = Protocol(
    backbone="tiny",
    image_size=None,
    device="cpu",
    seeds=2,
    num_steps=7,
    batch_size=3,
    precision="bfloat16",
    folders={},
)


def measure_lora(backbone: Backbone, fit_all: Any) -> dict[str, Any]:
    return measure(
        backbone, lambda seed: find_problem("faces", seed, backbone, {}), "lora", PROTOCOL, fit_all
    )


def test_settings_are_chosen_by_validation_and_seeds_only_repeat(backbone: Backbone) -> None:
    seen: list[tuple[bool, int, Effort]] = []

    def fit_all(_: Any, data: Any, __: str, candidates: list[Any], effort: Effort) -> list[Fit]:
        seen.append((data.test is None, len(candidates), effort))
        # The third has the best accuracy together with the fourth, and a lower loss.
        accuracies = [0.1, 0.2, 0.7, 0.7][: len(candidates)]
        return [Fit(accuracy=a, val_loss=float(i), num_trained=5) for i, a in enumerate(accuracies)]

    row = measure_lora(backbone, fit_all)
    assert row["settings"] == METHODS["lora"][2]
    assert row["at_edge"] == ["rank"], "its rate has a worse one on either side, its rank has not"
    assert row["num_test"] == 100
    search = Effort(seed=0, num_steps=4, batch_size=3, precision="bfloat16")
    assert seen == [
        (True, 4, search),
        (True, 1, search),
        (False, 1, Effort(seed=0, num_steps=7, batch_size=3, precision="bfloat16")),
        (False, 1, Effort(seed=1, num_steps=7, batch_size=3, precision="bfloat16")),
    ]


@pytest.mark.parametrize(
    ("sign", "expected"),
    [(1.0, [0.0005, 0.003, 0.018, 0.108]), (-1.0, [0.003, 0.0005, 8.33333e-05, 1.38889e-05])],
)
def test_a_rate_that_wins_at_the_edge_is_followed_outwards_twice(
    backbone: Backbone, sign: float, expected: list[float]
) -> None:
    rates: list[float] = []

    def fit_all(_: Any, __: Any, ___: str, candidates: list[Any], ____: Effort) -> list[Fit]:
        rates.extend(each["learning_rate"] for each in candidates)
        return [
            Fit(accuracy=sign * each["learning_rate"], val_loss=0.0, num_trained=5) for each in candidates
        ]

    row = measure_lora(backbone, fit_all)
    assert row["settings"]["learning_rate"] == expected[-1]
    assert row["at_edge"] == ["learning_rate", "rank"]
    assert sorted(set(rates), key=lambda rate: sign * rate) == expected
