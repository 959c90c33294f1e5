"""Rules that say which pictures are kept."""

import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.engine_api import Answer, Because
from orchestrator.serve.keep_rules import KeepRule, find_reason, read_rules


def make_answer(because: Because | None = None, distance: float | None = 1.0, task: str = "bolts") -> Answer:
    return Answer(
        task=task,
        version=1,
        digest="a" * 64,
        probabilities=(("good", 0.7), ("bad", 0.3)),
        decision="good" if because is None else "unsure",
        because=because,
        batch_rows=1,
        batch_tasks=1,
        distance=distance,
    )


@pytest.mark.parametrize(
    ("texts", "because", "distance", "draw", "reason"),
    [
        (["unsure"], "several", 1.0, 0.5, "unsure"),
        (["unsure"], "confidence", None, 0.5, "unsure"),
        (["unsure"], "far", 9.0, 0.5, None),
        (["unsure"], None, 9.0, 0.5, None),
        (["far"], "far", 9.0, 0.5, "far"),
        (["far"], None, 9.0, 0.5, None),
        (["far=3"], None, 3.0, 0.5, "far"),
        (["far=3"], None, 2.9, 0.5, None),
        (["far=3"], None, None, 0.5, None),
        (["far=3"], "far", 1.0, 0.5, "far"),
        (["sample=0.01"], None, 1.0, 0.0099, "sample"),
        (["sample=0.01"], None, 1.0, 0.01, None),
        (["sample=1"], None, 1.0, 0.9999, "sample"),
        (["unsure,far,sample=0.01"], "cost", 1.0, 0.0, "unsure"),
        ([" unsure , far "], "far", 1.0, 0.9, "far"),
        # The last one that is about the task counts.
        (["unsure", "bolts:none"], "several", 1.0, 0.0, None),
        (["bolts:none", "unsure"], "several", 1.0, 0.0, "unsure"),
        (["nuts:unsure"], "several", 1.0, 0.0, None),
        (["b*:unsure", "n*:none"], "several", 1.0, 0.0, "unsure"),
        ([], "several", 1.0, 0.0, None),
    ],
)
def test_the_reason_to_keep_a_picture(
    texts: list[str], because: Because | None, distance: float | None, draw: float, reason: str | None
):
    assert find_reason(read_rules(texts), make_answer(because, distance), draw) == reason


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bolts:",
        ":unsure",
        "all",
        "unsure,unsure",
        "unsure=1",
        "sample",
        "sample=",
        "sample=0",
        "sample=1.1",
        "sample=nan",
        "sample=-1",
        "sample=٣",
        "far=-1",
        "far=inf",
        "unsure,none",
        "none=1",
        "unsure,",
    ],
)
def test_what_is_no_rule_is_refused_with_what_is_expected(text: str):
    with pytest.raises(ServeError, match="expected any of unsure, far"):
        KeepRule.read(text)
