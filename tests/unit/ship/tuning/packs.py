"""Tasks of a pack that differ in everything, and results held against each other."""

from collections.abc import Callable

import pytest
import torch

from ship.settings.config import TuneConfig
from ship.tuning.run import PackTask, TuneResult
from tests.unit.ship.factory import make_data

__all__ = ["WEIGHT_TOLERANCE", "Quick", "assert_same", "make_tasks"]

# Batched products of other sizes round differently, and AdamW steps by a gradient's sign where it is faint.
WEIGHT_TOLERANCE = 1e-4
Quick = Callable[..., TuneConfig]


def make_tasks(quick: Quick) -> list[PackTask]:
    """Tasks that differ in everything: images, classes, K, levels, start, batch size, epochs, seed."""
    settings = [
        (make_data(24, 3, seed=1), {"epochs": 6}),
        (make_data(10, 2, seed=2), {"num_independent": 5, "seed": 3, "threshold": 1.0}),
        (make_data(17, 4, seed=3), {"batch_size": 5, "start": "published", "learning_rate": 1e-3}),
        (make_data(30, 5, num_val=8, seed=4), {"num_attribute": 0, "epochs": 2, "top_k": 2}),
        (make_data(9, 3, seed=5), {"num_independent": 0, "num_shared": 0, "num_attribute": 0}),
        (make_data(12, 3, seed=6), {"threshold": -1.0, "num_attribute": 2}),
    ]
    return [PackTask(data=data, config=quick(precision="float32", **own)) for data, own in settings]


def assert_same(found: TuneResult | Exception, expected: TuneResult | Exception) -> None:
    assert isinstance(found, TuneResult)
    assert isinstance(expected, TuneResult)
    for key, value in expected.prompt.state_dict().items():
        torch.testing.assert_close(found.prompt.state_dict()[key], value, atol=WEIGHT_TOLERANCE, rtol=0)
    assert expected.history
    assert [report.epoch for report in found.history] == [report.epoch for report in expected.history]
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.val_accuracy == theirs.val_accuracy
    assert found.preparation == expected.preparation
    assert found.evaluation.confusion_CC == expected.evaluation.confusion_CC
    # Of probabilities, which rounding moves; the counts it does not.
    error = expected.evaluation.calibration_error
    assert found.evaluation.calibration_error == pytest.approx(error, abs=1e-5)
