"""Decision rules of prompts in memory: each version has its own, and a new one is read without the prompt."""

import threading
from collections import Counter

from orchestrator.errors import StoreError
from orchestrator.serve.engine_api import Refusal
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import PromptRef
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry, IdleTask
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError
from tests.unit.orchestrator.serve.residency.factory import Clock, Loader, digest
from tests.unit.orchestrator.serve.residency.prompt_pool import PATIENCE_S, apply, find


class Rules:
    """Rules that tell themselves apart, read when they are let."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.errors: dict[str, Exception] = {}
        self.reads: Counter[str] = Counter()

    def __call__(self, ref: PromptRef) -> DecisionRule:
        assert ref.rule is not None
        self.started.set()
        assert self.gate.wait(PATIENCE_S)
        self.reads[ref.rule] += 1
        if error := self.errors.get(ref.rule):
            raise error
        return DecisionRule(temperature=float(ref.rule))


def ruled_catalog(version: int, **rules: str) -> Catalog:
    """Versions 1 to 3 of bolts, the given one as champion, with rules of versions by name."""
    others = {other: digest("bolts", other) for other in (1, 2, 3) if other != version}
    named = {digest("bolts", int(name[1:])): rule for name, rule in rules.items()}
    entry = CatalogEntry(version=version, digest=digest("bolts", version), others=others, rules=named)
    return Catalog(entries={"bolts": entry})


def test_a_promotion_and_a_rollback_bring_each_version_its_own_rule(load: Loader) -> None:
    residency = Residency(load, read_rule=Rules())
    served = []
    for version in (1, 2, 1, 3):
        apply(residency, ruled_catalog(version, v1="10", v2="20"))
        served.append(find(residency, "bolts"))
    assert [(found.version, found.rule_digest, found.rule.temperature) for found in served] == [
        (1, "10", 10.0),
        (2, "20", 20.0),
        (1, "10", 10.0),
        (3, None, 1.0),
    ]


def test_while_a_new_rule_is_read_the_last_one_decides_and_a_newer_one_wins(load: Loader) -> None:
    rules = Rules()
    residency = Residency(load, read_rule=rules)
    apply(residency, ruled_catalog(1, v1="10"))
    rules.gate.clear()
    rules.started.clear()
    residency.apply(ruled_catalog(1, v1="11"))
    assert rules.started.wait(PATIENCE_S)
    assert find(residency, "bolts").rule_digest == "10", "no request waits for it"
    residency.apply(ruled_catalog(1, v1="12"))
    rules.gate.set()
    assert residency.wait_loaded(PATIENCE_S)
    assert residency.wait_loaded(PATIENCE_S)
    assert find(residency, "bolts").rule_digest == "12"
    assert load.loads == {"bolts-1": 1}


def test_a_rule_that_is_taken_back_while_it_is_read_never_decides(load: Loader) -> None:
    rules = Rules()
    residency = Residency(load, read_rule=rules)
    apply(residency, ruled_catalog(1, v1="10"))
    rules.gate.clear()
    rules.started.clear()
    residency.apply(ruled_catalog(1, v1="11"))
    assert rules.started.wait(PATIENCE_S)
    residency.apply(ruled_catalog(1, v1="10"))
    rules.gate.set()
    assert residency.wait_loaded(PATIENCE_S)
    assert residency.wait_loaded(PATIENCE_S)
    assert find(residency, "bolts").rule_digest == "10"
    assert rules.reads == {"10": 1, "11": 1}, "the one that decides was there all the time"


def test_a_rule_that_fails_after_another_one_was_wanted_is_no_problem_of_that_one(load: Loader) -> None:
    rules = Rules()
    rules.errors["11"] = ArtifactError("of another task")
    residency = Residency(load, read_rule=rules)
    apply(residency, ruled_catalog(1, v1="10"))
    rules.gate.clear()
    rules.started.clear()
    residency.apply(ruled_catalog(1, v1="11"))
    assert rules.started.wait(PATIENCE_S)
    residency.apply(ruled_catalog(1, v1="12"))
    rules.gate.set()
    assert residency.wait_loaded(PATIENCE_S)
    assert residency.wait_loaded(PATIENCE_S)
    assert find(residency, "bolts").rule_digest == "12"
    assert residency.state("bolts").problem is None


def test_a_rule_that_the_store_failed_to_give_is_read_again_after_a_while(load: Loader, clock: Clock) -> None:
    rules = Rules()
    residency = Residency(load, retry_s=10.0, clock=clock, read_rule=rules)
    apply(residency, ruled_catalog(1, v1="10"))
    rules.errors["11"] = StoreError("down")
    apply(residency, ruled_catalog(1, v1="11"))
    rules.errors.clear()
    for passed_s, rule in ((5.0, "10"), (5.0, "11")):
        clock.now_s += passed_s
        residency.refresh()
        assert residency.wait_loaded(PATIENCE_S)
        assert find(residency, "bolts").rule_digest == rule
    assert residency.state("bolts").problem is None


def test_the_new_rule_of_a_version_that_only_answers_by_number_is_followed(load: Loader) -> None:
    residency = Residency(load, read_rule=Rules())
    apply(residency, ruled_catalog(1))
    assert find(residency, "bolts", version=3).rule_digest is None
    apply(residency, ruled_catalog(1, v3="30"))
    assert find(residency, "bolts", version=3).rule_digest == "30"
    assert find(residency, "bolts").rule_digest is None
    assert load.loads == {"bolts-1": 1, "bolts-3": 1}


def test_a_prompt_that_is_not_in_memory_is_not_served_without_its_rule(load: Loader, clock: Clock) -> None:
    rules = Rules()
    rules.errors["10"] = StoreError("down")
    residency = Residency(load, retry_s=10.0, clock=clock, read_rule=rules)
    apply(residency, ruled_catalog(1, v1="10"))
    found = find(residency, "bolts")
    assert isinstance(found, Refusal)
    assert found.reason == "not_loaded"
    assert load.loads == {}, "a prompt without its rule takes no other's room"
    rules.errors.clear()
    clock.now_s += 10.0
    assert find(residency, "bolts").rule_digest == "10"


def test_a_promoted_version_whose_rule_fails_leaves_the_champion_and_its_rule(load: Loader) -> None:
    rules = Rules()
    rules.errors["20"] = ArtifactError("of another task")
    residency = Residency(load, read_rule=rules)
    apply(residency, ruled_catalog(1, v1="10", v2="20"))
    apply(residency, ruled_catalog(2, v1="10", v2="20"))
    found = find(residency, "bolts")
    assert (found.version, found.rule_digest) == (1, "10")
    state = residency.state("bolts")
    assert (state.version, state.rule, state.wanted_version, state.wanted_rule) == (1, "10", 2, "20")
    assert state.problem == "of another task"


def test_canary_and_champion_decide_by_their_own_rules(load: Loader) -> None:
    residency = Residency(load, read_rule=Rules())
    entry = CatalogEntry(
        version=1,
        digest="bolts-1",
        others={2: "bolts-2"},
        canary=Canary(version=2, share=0.5),
        rules={"bolts-1": "10", "bolts-2": "20"},
    )
    apply(residency, Catalog(entries={"bolts": entry}))
    found = [find(residency, "bolts", key=str(number)) for number in range(40)]
    assert {(one.version, one.rule_digest) for one in found} == {(1, "10"), (2, "20")}


def test_a_version_of_a_task_without_a_champion_decides_by_its_rule(load: Loader) -> None:
    residency = Residency(load, read_rule=Rules())

    def waiting(rule: str) -> Catalog:
        return Catalog(entries={}, idle={"bolts": IdleTask(versions={1: "bolts-1"}, rules={"bolts-1": rule})})

    apply(residency, waiting("10"))
    assert find(residency, "bolts", version=1).rule_digest == "10"
    apply(residency, waiting("11"))
    assert find(residency, "bolts", version=1).rule_digest == "11"
    assert load.loads == {"bolts-1": 1}
