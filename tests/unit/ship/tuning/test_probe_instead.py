"""A linear probe takes the place of a tuned prompt that is significantly worse, and says why."""

import json
import re
from dataclasses import replace

import pytest

from ship.artifact.card import CARD, RECORD, PromptCard
from ship.artifact.files import load_files
from ship.artifact.making import make_artifact
from ship.backbone import Backbone
from ship.settings.config import TuneConfig
from ship.tuning.diagnosis import find_cause
from ship.tuning.probe_instead import take_the_better
from ship.tuning.run import EpochReport, TuneResult, tune
from tests.unit.ship.factory import QUICK, make_data

DATA = make_data(num_train=48)


@pytest.fixture(scope="module")
def tuned(backbone: Backbone) -> TuneResult:
    return tune(backbone, DATA, TuneConfig(**{**QUICK, "epochs": 2}))


def spoil(result: TuneResult, num_wrong: int) -> TuneResult:
    """The result with the first answers wrong, all others as the probe's."""
    right = result.preparation.probe_right
    spoilt = "0" * num_wrong + right[num_wrong:]
    evaluation = replace(result.evaluation, right=spoilt, accuracy=spoilt.count("1") / len(spoilt))
    return replace(result, evaluation=evaluation)


@pytest.fixture(scope="module")
def replaced(backbone: Backbone, tuned: TuneResult) -> TuneResult:
    return take_the_better(spoil(tuned, 9), DATA, lambda config: tune(backbone, DATA, config))


def test_a_prompt_that_is_no_worse_stays(tuned: TuneResult) -> None:
    def fail(config: TuneConfig) -> TuneResult:
        raise AssertionError("nothing is to be tuned again")

    for num_wrong in (0, 2):
        result = spoil(tuned, num_wrong)
        assert take_the_better(result, DATA, fail) is result
    unknown = replace(spoil(tuned, 9), preparation=replace(tuned.preparation, probe_right=""))
    assert take_the_better(unknown, DATA, fail) is unknown


def test_the_probe_takes_the_place_of_a_prompt_that_is_worse(tuned: TuneResult, replaced: TuneResult) -> None:
    assert replaced.prompt.config.kind == "probe"
    assert replaced.evaluation.right == tuned.preparation.probe_right == replaced.preparation.probe_right
    instead_of = replaced.instead_of
    assert instead_of is not None
    assert instead_of.settings == tuned.prompt.config.to_dict()
    assert (instead_of.accuracy, instead_of.gained) == (spoil(tuned, 9).evaluation.accuracy, 0)
    assert instead_of.p_worse < 0.05
    assert instead_of.history == tuned.history
    assert replaced.tuning_s > tuned.tuning_s
    assert "by 0.011 to 0.019" in instead_of.reason
    shares = f"{instead_of.balanced_accuracy:.4f} (accuracy {instead_of.accuracy:.4f})"
    assert f"whose balanced accuracy {shares} is significantly lower" in instead_of.reason
    assert instead_of.cause in repr(replaced)


def test_its_artifact_is_a_probe_that_says_what_it_took_the_place_of(
    backbone: Backbone, tuned: TuneResult, replaced: TuneResult
) -> None:
    files = make_artifact("stripes", backbone, DATA, replaced, task_key="0" * 64)
    card = PromptCard.from_json(files[CARD])
    assert (card.config.kind, card.task_key) == ("probe", "0" * 64)
    assert card.metrics["accuracy"] == tuned.preparation.probe_accuracy
    assert card.metrics["epochs"] == 2, "what it cost to find that out"
    assert load_files(files).prompt.config.kind == "probe"
    record = json.loads(files[RECORD])
    assert record["instead_of"]["p_worse"] < 0.05
    assert len(record["instead_of"]["history"]) == 2
    assert record["choice"].startswith("The linear probe takes the place of the tuned ship prompt")
    assert record["held_out"]["right"] == replaced.evaluation.right
    assert record["learning_curve"] == replaced.preparation.learning_curve


def test_the_learning_curve_ends_at_the_probe(tuned: TuneResult) -> None:
    (quarter, _), (half, _), (all_, accuracy) = tuned.preparation.learning_curve
    assert (quarter, half, all_) == (12, 24, 48)
    assert accuracy == tuned.preparation.probe_accuracy


def test_a_class_of_three_images_has_no_learning_curve(backbone: Backbone) -> None:
    result = tune(backbone, make_data(num_train=9), TuneConfig(**QUICK, kind="probe"))
    assert result.preparation.learning_curve == []


def history(accuracies: list[float], losses: list[float] | None = None) -> list[EpochReport]:
    return [
        EpochReport(
            epoch=number + 1,
            num_epochs=len(accuracies),
            loss=1.0 if losses is None else losses[number],
            matching_loss=0.0,
            train_accuracy=accuracy,
            val_accuracy=None,
            val_loss=None,
            learning_rate=0.1,
            time_s=0.0,
        )
        for number, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("accuracies", "losses", "settings", "said"),
    [
        ([0.7, 0.5, 0.5], None, {"warmup_epochs": 1}, "fell to 0.500 in epoch 2.*set warmup_epochs to 10"),
        ([0.7, 0.5, 0.6], None, {}, "training collapsed.*ended at 0.600; lower learning_rate"),
        (
            [0.5, 0.9, 0.5],
            None,
            {"start": "published", "warmup_epochs": 0},
            "training collapsed.*warmup_epochs: 0; set warmup_epochs to 10",
        ),
        ([0.5, 0.5, 0.5], [1.0, 2.0, 3.0], {"start": "published"}, "did not fall.*lower learning_rate"),
        ([0.5, 0.6, 0.7], [1.0, 0.9, 0.7], {"start": "published"}, "the loss still fell.*raise epochs"),
        ([0.6], [1.0], {"start": "published"}, "after 1 epochs.*raise epochs"),
        (
            [0.5, 0.5, 0.5],
            [1.0, 0.999, 0.998],
            {"start": "published"},
            "hardly fell.*raise learning_rate",
        ),
        ([0.9, 1.0, 1.0], None, {}, "learnt by heart.*augment: flips"),
        ([0.8, 0.85], None, {}, "learnt by heart"),
        ([0.8, 0.79], None, {"kind": "lora"}, "the lora prompt gains nothing.*kind: auto"),
        ([], None, {}, "not on record"),
    ],
)
def test_the_cause_is_read_off_the_history(
    accuracies: list[float], losses: list[float] | None, settings: dict[str, object], said: str
) -> None:
    found = find_cause(
        history(accuracies, losses), TuneConfig(**settings), accuracy=0.72, probe_accuracy=0.80
    )
    assert re.search(said, found), found
