"""The rollout's document with decision rules, and as the release before wrote it."""

import json

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.documents.rollout import Aliases, Change, Rollout, VersionRef
from tests.unit.orchestrator.store.factory import TIME_S, make_key

ROLLOUT = Rollout(
    task="bolts",
    model_ms=1,
    generation=1,
    aliases=Aliases(versions={"champion": 1}),
    mirrored=Aliases(),
    versions={1: VersionRef(digest=make_key("artifact-1"), published_s=TIME_S)},
    change=Change(kind="promote", by="anna", host="line-pc", time_s=TIME_S, reason="", change_id="1"),
)
ARTIFACT, RULE = make_key("artifact-1"), make_key("rule-1")


def test_rules_read_back_in_the_order_in_which_they_were_set() -> None:
    rollout = ROLLOUT.with_rule(make_key("z"), RULE).with_rule(ARTIFACT, RULE).with_rule(make_key("a"), RULE)

    found = Rollout.from_json(rollout.to_json(), "here")

    assert found == rollout
    assert list(found.rules) == [make_key("z"), ARTIFACT, make_key("a")]


def test_without_a_rule_the_release_before_reads_it() -> None:
    back_again = ROLLOUT.with_rule(ARTIFACT, RULE).with_rule(ARTIFACT, None)

    for rollout in (ROLLOUT, back_again):
        values = json.loads(rollout.to_json())
        assert "rules" not in values
        assert Rollout.from_json(rollout.to_json(), "here") == ROLLOUT


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"rules": None},
        {"rules": [{"artifact": ARTIFACT}]},
        {"rules": [{"artifact": ARTIFACT, "rule": "short"}]},
        {"rules": [{"artifact": ARTIFACT, "rule": RULE, "more": 1}]},
    ],
)
def test_other_rules_are_refused(change: dict[str, object]) -> None:
    values = json.loads(ROLLOUT.with_rule(ARTIFACT, RULE).to_json()) | change

    with pytest.raises(StoreError, match="here: "):
        Rollout.from_json(json.dumps(values).encode(), "here")


def test_of_many_rules_the_oldest_of_versions_without_an_alias_are_forgotten() -> None:
    rollout = ROLLOUT.with_rule(ARTIFACT, RULE)
    for number in range(200):
        rollout = rollout.with_rule(make_key(f"old-{number}"), RULE)

    assert len(rollout.rules) == 128
    assert rollout.rules[ARTIFACT] == RULE, "that of the champion stays"
    assert make_key("old-199") in rollout.rules
    assert make_key("old-0") not in rollout.rules
    assert len(rollout.to_json()) < 32 << 10
