"""Names by a token's patterns, in order; found once for each set of patterns."""

import pytest

from orchestrator.serve.residency.task_names import TaskNames
from orchestrator.store.documents.tokens import Scope

NAMES = ["bolts", "line-1-caps", "line-1-nuts", "line-10", "line-2-caps", "x.y_z"]
PATTERNS = [
    (),
    ("*",),
    ("bolts",),
    ("line-1-*", "bolts"),
    ("line-?-caps",),
    ("line-[12]*",),
    ("x.y_z", "*-nuts"),
]


@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize("after", ["", "bolts", "line-1-d", "zzz"])
def test_they_are_those_that_the_scope_covers(patterns: tuple[str, ...], after: str) -> None:
    names, scope = TaskNames(reversed(NAMES)), Scope(predict=patterns)
    expected = [name for name in NAMES if name > after and scope.may_predict(name)]
    for _ in range(2):
        assert names.behind(patterns, after) == expected


def test_tokens_beyond_those_kept_are_answered_too() -> None:
    names = TaskNames(NAMES)
    for number in range(200):
        assert names.behind((f"token-{number}", "bolts"), "") == ["bolts"]
    assert len(names._matched) == 64
