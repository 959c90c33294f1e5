"""Decision rules that nothing names are garbage; those of rollouts and of the catalog stay."""

from dataclasses import replace

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.rollout import Aliases, Change, Rollout
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.prompt_store import PromptStore
from ship.decision.rule import DecisionRule
from tests.unit.orchestrator.store.factory import TIME_S
from tests.unit.orchestrator.store.garbage.factory import DAY_S, KEY, collector, later, mark


def write_rule(store: PromptStore, name: str) -> str:
    rule = StoredRule(task="bolts", artifact=KEY, rule=DecisionRule(), by=name, host="line-pc", time_s=TIME_S)
    return store.rules.write(rule)


def write_rollout(store: PromptStore, rule: str) -> None:
    store.write_rollout(
        Rollout(
            task="bolts",
            model_ms=1,
            generation=1,
            aliases=Aliases(),
            mirrored=Aliases(),
            versions={},
            change=Change(kind="threshold", by="", host="", time_s=TIME_S, reason="", change_id="1"),
            rules={KEY: rule},
        ),
        None,
    )


def test_a_rule_that_no_rollout_and_no_catalog_names_goes(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    orphan, ruled, served = (write_rule(store, name) for name in ("orphan", "ruled", "served"))
    write_rollout(store, ruled)
    entry = CatalogEntry(version=1, digest=KEY, rules={KEY: served})
    store.write_catalog(Catalog(entries={"bolts": entry}), None)
    objects.put_new("rules/README.md", b"of a person")
    mark(objects)
    sweeper = later(objects)

    found = sweeper.find(DAY_S)

    assert [(one.kind, one.name) for one in found] == [("rule", orphan)]
    assert sweeper.remove(found) == found
    kept = sorted(f"rules/{digest}.json" for digest in (ruled, served))
    assert sorted(objects.list("rules/")) == sorted([*kept, "rules/README.md"])


def test_a_young_rule_stays_and_one_that_was_written_again(objects: ObjectStore) -> None:
    store = PromptStore(objects)
    rule = write_rule(store, "anna")
    assert collector(objects, age_s=0).find(DAY_S) == []
    mark(objects)
    sweeper = later(objects)
    found = sweeper.find(DAY_S)
    assert [one.name for one in found] == [rule]
    old = [replace(one, modified_s=one.modified_s - 10) for one in found]
    assert sweeper.remove(old) == []


def test_a_rollout_that_cannot_be_read_may_name_any_rule(objects: ObjectStore) -> None:
    write_rule(PromptStore(objects), "anna")
    objects.put_new("rollouts/bolts.json", b"{")

    with pytest.raises(StoreError, match=r"rollouts/bolts\.json"):
        later(objects).find(DAY_S)
