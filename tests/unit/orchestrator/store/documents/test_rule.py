"""A decision rule in the store is named by its content, read back strictly, and never changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import ObjectMissing, StoreError
from orchestrator.store.documents.rule import MAX_RULE_BYTES, StoredRule
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.prompt_store import PromptStore
from ship.decision.rule import Costs, DecisionRule
from tests.unit.orchestrator.store.factory import TIME_S, make_key

WRITTEN = Path(__file__).parents[4] / "fixtures" / "store-2026-11" / "store" / "rules"
RULE = StoredRule(
    task="bolts",
    artifact=make_key("artifact"),
    rule=DecisionRule(
        temperature=1.5,
        thresholds={"scratch": 0.2},
        recalls={"scratch": 0.99},
        costs=Costs(good="good", escape=50.0, unsure=0.2),
        max_distance=12.5,
        expected={"images": 40},
    ),
    by="anna",
    host="line-pc",
    time_s=TIME_S,
    reason="customers complain of scratches",
)


def test_it_reads_back_from_the_store_by_its_digest(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    digest = store.rules.write(RULE)

    assert store.rules.read(digest) == RULE
    assert list(objects.list("rules/")) == [f"rules/{digest}.json"]
    assert store.rules.write(RULE) == digest, "the same rule is the same object"
    assert store.rules.write(replace(RULE, by="ben")) != digest


def test_one_of_a_balanced_task_reads_back_too(objects: ObjectStore) -> None:
    balanced = replace(RULE, rule=replace(RULE.rule, frequencies={"good": 0.96, "scratch": 0.04}))
    store = PromptStore(objects)

    assert store.rules.read(store.rules.write(balanced)) == balanced
    assert store.rules.write(balanced) != store.rules.write(RULE)


@pytest.mark.parametrize("path", sorted(WRITTEN.glob("*.json")), ids=lambda path: path.stem[:12])
def test_one_that_an_earlier_version_wrote_keeps_its_digest(path: Path) -> None:
    found = StoredRule.from_json(path.read_bytes(), path.name)

    assert found.rule.frequencies is None
    assert StoredRule.digest_of(found.to_json()) == path.stem


def test_a_missing_one_is_told_from_a_damaged_one(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    digest = store.rules.write(RULE)
    objects.put(f"rules/{digest}.json", RULE.to_json().replace(b"0.99", b"0.50"))

    with pytest.raises(StoreError, match=f"expected sha256 {digest}, found"):
        store.rules.read(digest)
    with pytest.raises(StoreError, match="expected sha256"):
        store.rules.write(RULE)
    with pytest.raises(ObjectMissing):
        store.rules.read("0" * 64)
    with pytest.raises(StoreError, match="expected 64 hex digits"):
        store.rules.read("../catalog")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 0}, "'schema'"),
        ({"extra": 1}, "'extra'"),
        ({"task": "../x"}, "'task'"),
        ({"artifact": "short"}, "'artifact'"),
        ({"time_s": float("nan")}, "'time_s'"),
        ({"time_s": float("inf")}, "'time_s'"),
        ({"reason": "x" * 3000}, "'reason'"),
        ({"rule": []}, "'rule'"),
        ({"rule": {}}, "decision rule: expected exactly"),
        ({"rule": {**RULE.rule.to_dict(), "temperature": 0.0}}, "temperature"),
        ({"rule": {**RULE.rule.to_dict(), "thresholds": {"scratch": 2.0}}}, "thresholds"),
        (
            {"rule": {**RULE.rule.to_dict(), "frequencies": {"scratch": 0.1}}},
            "schema 1, or 2 with frequencies",
        ),
        ({"rule": {**RULE.rule.to_dict(), "schema": 2, "frequencies": {"scratch": 0}}}, "frequencies"),
    ],
)
def test_anything_unexpected_is_refused(change: dict[str, object], problem: str) -> None:
    content = json.dumps(json.loads(RULE.to_json()) | change).encode()

    with pytest.raises(StoreError, match=problem) as caught:
        StoredRule.from_json(content, "rules/x.json")

    assert "set the rule again with `ship threshold`" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]"])
def test_what_is_no_rule_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match=r"rules/x\.json"):
        StoredRule.from_json(content, "rules/x.json")


def test_one_that_no_reader_would_take_is_not_written(objects: ObjectStore) -> None:
    large = replace(RULE, rule=replace(RULE.rule, expected={"text": "x" * MAX_RULE_BYTES}))

    with pytest.raises(StoreError, match="expected at most 1048576"):
        PromptStore(objects).rules.write(large)
    assert list(objects.list("rules/")) == []
