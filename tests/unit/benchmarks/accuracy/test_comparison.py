"""Settings are chosen by validation; seeds only repeat the training."""

from typing import Any

from ship.backbone import Backbone
from tests.benchmarks.accuracy.comparison import Protocol, measure
from tests.benchmarks.accuracy.methods import METHODS, Effort, Fit
from tests.benchmarks.accuracy.tasks import make_problem


def test_settings_are_chosen_by_validation_and_seeds_only_repeat(backbone: Backbone) -> None:
    seen: list[tuple[bool, int, Effort]] = []

    def fit_all(_: Any, data: Any, __: str, candidates: list[Any], effort: Effort) -> list[Fit]:
        seen.append((data.test is None, len(candidates), effort))
        # The third has the best accuracy together with the fourth, and a lower loss.
        accuracies = [0.1, 0.2, 0.7, 0.7][: len(candidates)]
        return [Fit(accuracy=a, val_loss=float(i), num_trained=5) for i, a in enumerate(accuracies)]

    problems = [make_problem("faces", seed, backbone, {}) for seed in range(2)]
    protocol = Protocol(
        backbone="tiny", device="cpu", seeds=2, num_steps=7, batch_size=3, precision="bfloat16", vtab={}
    )
    row = measure(backbone, problems, "lora", protocol, fit_all)
    assert row["settings"] == METHODS["lora"][2]
    assert seen == [
        (True, 4, Effort(seed=0, num_steps=4, batch_size=3, precision="bfloat16")),
        (False, 1, Effort(seed=0, num_steps=7, batch_size=3, precision="bfloat16")),
        (False, 1, Effort(seed=1, num_steps=7, batch_size=3, precision="bfloat16")),
    ]
