"""Methods are compared with as many candidates, and every one of them trains."""

import pytest

from tests.benchmarks.accuracy.methods import ABLATIONS, ALL, METHODS, Effort, Fit, fit_all
from tests.unit.ship.factory import make_backbone, make_data

EFFORT = Effort(seed=0, num_steps=2, batch_size=12, precision="float32")


def fit(method: str) -> list[Fit]:
    return fit_all(make_backbone(), make_data(12), method, ALL[method], EFFORT)


def test_every_method_has_as_many_candidates() -> None:
    assert {len(candidates) for name, candidates in METHODS.items() if not name.startswith("linear")} == {4}
    assert {len(candidates) for candidates in ABLATIONS.values()} == {4}


@pytest.mark.parametrize("method", [*METHODS, *ABLATIONS, "preset quick"])
def test_every_candidate_of_a_method_trains(method: str) -> None:
    fits = fit(method)
    assert len(fits) == len(ALL[method])
    assert all(0.0 <= each.accuracy <= 1.0 and each.num_trained > 0 for each in fits)


def test_full_fine_tuning_trains_all_weights_and_ship_few() -> None:
    [full, *_], [ship, *_], [linear] = (fit(method) for method in ("full", "ship", "linear"))
    assert full.num_trained > make_backbone().info.num_params > ship.num_trained > linear.num_trained
