"""Answers rows of any mixture of tasks in one forward pass. Knows nothing of Ray or HTTP.

Shapes: B rows, U images, H,W the backbone's input size, C classes (ragged).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from orchestrator.serve.engine_api import Answer, Image, Refusal
from orchestrator.serve.residency.served import ServedVersion
from orchestrator.tracing import Span
from ship.runtime.runtime import RowOutput, Runtime

__all__ = ["Row", "answer_rows"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image and the version that answers for it, whatever is promoted meanwhile.

    Attributes:
        image: uint8, ``3,H,W`` of the backbone's input size; ``T,3,H,W`` of a picture in tiles.
        served: Weights, labels, version and digest.
        span: Span of the question, if it is traced.
    """

    image: Image
    served: ServedVersion
    span: Span | None = None


def answer_rows(runtime: Runtime, rows: Sequence[Row]) -> list[Answer | Refusal]:
    """Answer each row; a row that fails fails alone."""
    try:
        return _answer_batch(runtime, rows)
    # A boundary: what one row brings about in the forward pass (any error) must not cost the others theirs.
    except Exception as error:
        if len(rows) > 1:
            _log.warning("a batch of %d rows failed (%s); answering them one by one", len(rows), error)
            return [answer for row in rows for answer in answer_rows(runtime, [row])]
        _log.exception("the forward pass failed for task %s", rows[0].served.task)
        return [Refusal(reason="failed", detail=f"the forward pass failed ({type(error).__name__})")]


def _answer_batch(runtime: Runtime, rows: Sequence[Row]) -> list[Answer | Refusal]:
    # Rows that came with one image share it, and it is embedded once.
    images = {id(row.image): row.image if row.image.ndim == 4 else row.image[None] for row in rows}
    firsts = dict(zip(images, accumulate(map(len, images.values()), initial=0), strict=False))
    images_U3HW = torch.from_numpy(np.concatenate(list(images.values())))
    image_of_row = [firsts[id(row.image)] for row in rows]
    outputs = runtime.infer_rows(images_U3HW, [row.served.slot for row in rows], image_of_row)
    num_rows = sum(row.served.slot.num_tiles for row in rows)
    num_tasks = len({row.served.task for row in rows})
    return [
        _answer(row.served, output, num_rows, num_tasks) for row, output in zip(rows, outputs, strict=True)
    ]


def _answer(served: ServedVersion, output: RowOutput, batch_rows: int, batch_tasks: int) -> Answer | Refusal:
    logits_C, rule = output.logits_C.tolist(), served.rule
    distance = None if served.distance is None else served.distance.distance(output.feature_D)
    if distance is not None and rule.max_distance is None and not math.isfinite(distance):
        # Nothing is decided by it.
        distance = None
    if not all(map(math.isfinite, [*logits_C, distance or 0.0])):
        return Refusal(reason="failed", detail=f"task {served.task!r} gave scores that are no numbers")
    decided = rule.decide(served.labels, logits_C, distance)
    ranked = sorted(zip(served.labels, decided.probabilities, strict=True), key=lambda pair: -pair[1])
    return Answer(
        task=served.task,
        version=served.version,
        digest=served.digest,
        probabilities=tuple(ranked),
        decision=decided.label,
        because=decided.because,
        rule=served.rule_digest,
        batch_rows=batch_rows,
        batch_tasks=batch_tasks,
        shadow_version=served.shadow_version,
        distance=distance,
    )
