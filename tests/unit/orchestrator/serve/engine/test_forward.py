"""Rows of a mixed batch are answered as alone, with their own labels, and fail alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Module
from torch.nn.modules.module import register_module_forward_pre_hook

from orchestrator.serve.engine.forward import Row, answer_rows
from orchestrator.serve.engine_api import Answer, Image, Refusal
from orchestrator.serve.residency.served import ServedVersion
from ship.backbone import Backbone
from ship.decision.distance import DistanceModel
from ship.decision.rule import DecisionRule
from ship.runtime.runtime import RowOutput, Runtime
from ship.runtime.slots import Slot
from tests.unit.orchestrator.serve.factory import make_labels, make_prompt, make_served


def draw(backbone: Backbone, seed: int) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (3, *backbone.image_size), dtype=np.uint8)


@pytest.fixture
def rows(backbone: Backbone, runtime: Runtime) -> list[Row]:
    served = [
        make_served(runtime, task, version, num_classes, seed=version)
        for task, version, num_classes in (("bolts", 1, 2), ("nuts", 2, 5), ("bolts", 3, 2))
    ]
    return [Row(image=draw(backbone, seed), served=task) for seed, task in enumerate(served)]


class Picky:
    """A runtime that fails for one prompt, and gives NaN for another."""

    def __init__(self, runtime: Runtime, fails_for: ServedVersion, broken: ServedVersion) -> None:
        self.runtime = runtime
        self.fails_for, self.broken = fails_for.slot, broken.slot

    def infer_rows(
        self, images_U3HW: Tensor, slots: Sequence[Slot], image_of_row: Sequence[int]
    ) -> list[RowOutput]:
        if any(slot is self.fails_for for slot in slots):
            raise RuntimeError("out of memory")
        found = self.runtime.infer_rows(images_U3HW, slots, image_of_row)
        return [
            replace(output, logits_C=output.logits_C * float("nan")) if slot is self.broken else output
            for output, slot in zip(found, slots, strict=True)
        ]


def test_rows_of_a_mixed_batch_are_answered_as_alone(runtime: Runtime, rows: list[Row]):
    together = answer_rows(runtime, rows)
    for row, answer in zip(rows, together, strict=True):
        logits_C = runtime.infer(torch.from_numpy(row.image)[None], [row.served.slot])[0]
        expected = dict(zip(row.served.labels, torch.softmax(logits_C.double(), 0).tolist(), strict=True))
        # float32 sums in another order.
        assert dict(answer.probabilities) == pytest.approx(expected, abs=1e-5)
        assert (answer.task, answer.version) == (row.served.task, row.served.version)
        assert answer.digest == row.served.digest
        assert (answer.batch_rows, answer.batch_tasks) == (3, 2)


def test_probabilities_fall_and_sum_to_one(runtime: Runtime, rows: list[Row]):
    answers = answer_rows(runtime, rows)
    assert len(answers) == len(rows)
    for answer in answers:
        values = [value for _, value in answer.probabilities]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1.0, abs=1e-12)


def test_rows_that_share_an_image_are_answered_alike_and_it_is_embedded_once(
    runtime: Runtime, rows: list[Row]
):
    embedded: list[int] = []

    def note(module: Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, Conv2d):
            embedded.append(len(inputs[0]))

    image_3HW = rows[0].image
    with register_module_forward_pre_hook(note):
        alone = [answer_rows(runtime, [Row(image=image_3HW, served=row.served)])[0] for row in rows]
        shared = answer_rows(runtime, [Row(image=image_3HW, served=row.served) for row in rows])
    assert embedded == [1, 1, 1, 1]
    for together, one in zip(shared, alone, strict=True):
        assert dict(together.probabilities) == pytest.approx(dict(one.probabilities), abs=1e-5)


def test_a_row_that_fails_fails_alone(runtime: Runtime, rows: list[Row]):
    picky = Picky(runtime, fails_for=rows[1].served, broken=rows[2].served)
    first, second, third = answer_rows(picky, rows)
    assert isinstance(first, Answer)
    assert isinstance(second, Refusal)
    assert second.reason == "failed"
    assert "out of memory" not in second.detail
    assert isinstance(third, Refusal)
    assert "no numbers" in third.detail


def test_an_image_of_another_size_fails_alone(runtime: Runtime, rows: list[Row]):
    odd = Row(image=np.zeros((3, 7, 7), dtype=np.uint8), served=rows[0].served)
    good, bad = answer_rows(runtime, [rows[0], odd])
    assert isinstance(good, Answer)
    assert isinstance(bad, Refusal)


def test_tiles_of_a_picture_are_rows_of_the_pass_and_one_answer(backbone: Backbone, runtime: Runtime) -> None:
    prompts = [make_prompt(backbone, 3, seed, num_tiles) for seed, num_tiles in enumerate((1, 4, 2))]
    served = [
        ServedVersion(
            task=f"t{number}",
            version=1,
            digest="d" * 64,
            labels=make_labels("t", 3, number),
            slot=runtime.insert(prompt),
        )
        for number, prompt in enumerate(prompts)
    ]
    whole = draw(backbone, 0)
    tiled = [np.stack([draw(backbone, 10 * count + tile) for tile in range(count)]) for count in (4, 2)]
    rows = [
        Row(image=tiled[0], served=served[1]),
        Row(image=whole, served=served[0]),
        Row(image=tiled[1], served=served[2]),
        Row(image=whole, served=served[0]),
    ]
    together = answer_rows(runtime, rows)
    for row, answer in zip(rows, together, strict=True):
        assert isinstance(answer, Answer)
        assert (answer.batch_rows, answer.batch_tasks) == (4 + 1 + 2 + 1, 3)
        [alone] = answer_rows(runtime, [row])
        assert isinstance(alone, Answer)
        assert dict(answer.probabilities) == pytest.approx(dict(alone.probabilities), abs=1e-5)


def test_each_row_is_decided_by_the_rule_of_its_own_version(runtime: Runtime, rows: list[Row]) -> None:
    plain, warm, shy = rows
    rule = DecisionRule(temperature=4.0, min_confidence=1.0)
    together = answer_rows(
        runtime,
        [
            plain,
            Row(image=warm.image, served=warm.served.ruled("a" * 64, DecisionRule(temperature=4.0))),
            Row(image=shy.image, served=shy.served.ruled("b" * 64, rule)),
        ],
    )
    assert [(answer.rule, answer.because) for answer in together] == [
        (None, None),
        ("a" * 64, None),
        ("b" * 64, "confidence"),
    ]
    assert together[2].decision == "unsure"
    for row, answer, temperature in zip(rows, together, (1.0, 4.0, 4.0), strict=True):
        logits_C = runtime.infer(torch.from_numpy(row.image)[None], [row.served.slot])[0]
        shares = torch.softmax(logits_C.double() / temperature, 0).tolist()
        expected = dict(zip(row.served.labels, shares, strict=True))
        # float32 sums in another order.
        assert dict(answer.probabilities) == pytest.approx(expected, abs=1e-5)
        if answer.because is None:
            assert answer.decision == answer.probabilities[0][0]


def test_a_picture_far_from_all_training_images_is_unsure(runtime: Runtime, rows: list[Row]) -> None:
    row = rows[0]
    [output] = runtime.infer_rows(torch.from_numpy(row.image)[None], [row.served.slot])
    features_BD = output.feature_D + torch.randn(8, len(output.feature_D)) * 0.1
    near = DistanceModel.fit(features_BD, torch.zeros(8, dtype=torch.int64))
    far = DistanceModel.fit(features_BD + 100.0, torch.zeros(8, dtype=torch.int64))
    limited = DecisionRule(max_distance=10.0)
    for distance, rule, because in (
        (near, limited, None),
        (far, limited, "far"),
        (far, DecisionRule(), None),
        (None, limited, None),
    ):
        served = replace(row.served, distance=distance, rule=rule)
        [answer] = answer_rows(runtime, [Row(image=row.image, served=served)])
        assert isinstance(answer, Answer)
        assert answer.because == because
        assert (answer.decision == "unsure") == (because is not None)
