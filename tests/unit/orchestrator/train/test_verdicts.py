"""Verdicts on what a run published, against a registry that is made of plain values."""

from dataclasses import dataclass, field, replace

import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.advice import Advice
from orchestrator.registry.session import RegistryDown, RegistryMissing
from orchestrator.registry.versions import (
    GATE_REASON_TAG,
    GATE_TAG,
    RETIRED,
    VERDICT_TAG,
    TaskInfo,
    VersionInfo,
)
from orchestrator.train.verdicts import Published, Verdict, failed_verdicts, find_verdicts
from tests.unit.orchestrator.registry.fake_mlflow import FakeMlflow, make_registry

NEEDS = Advice(
    kind="needs-data", gate="guessing", text="add 40 images", num_images=40, split="training", of_class="b"
)
METRICS = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "probe_accuracy": 0.85}


def make_version(number: int, digest: str, advice: Advice = NEEDS) -> VersionInfo:
    return VersionInfo(
        version=number,
        digest=digest,
        source="",
        metrics={**METRICS, "num_test": 40.0},
        aliases=(),
        created_s=0.0,
        run_id=None,
        tags={GATE_REASON_TAG: f"reason of {digest}", VERDICT_TAG: advice.to_json()},
    )


@dataclass
class Registry:
    """Champion and challenger by task; all went through the gate, as did ``others``."""

    standing: dict[str, tuple[VersionInfo | None, VersionInfo | None]] = field(default_factory=dict)
    others: dict[str, VersionInfo] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    error: RegistryError | None = None

    def tasks(self) -> list[TaskInfo]:
        if self.error is not None:
            raise self.error
        return [
            TaskInfo(
                task=task,
                champion=champion,
                challenger=challenger,
                previous=None,
                latest=1,
                updated_s=0.0,
                aliases=self.aliases,
            )
            for task, (champion, challenger) in self.standing.items()
        ]

    def gated_versions(self) -> dict[tuple[str, str], VersionInfo]:
        if self.error is not None:
            raise self.error
        with_alias = [(task, version) for task, pair in self.standing.items() for version in pair]
        return {
            (task, version.digest): version
            for task, version in (*self.others.items(), *with_alias)
            if version is not None and version.digest is not None
        }


def judge(registry: Registry, digest: str | None = "new", **values: object) -> Verdict:
    [verdict] = find_verdicts(registry, [Published(task="a", digest=digest, **values)])
    return verdict


def test_a_promoted_version_serves() -> None:
    found = judge(Registry({"a": (make_version(2, "new"), None)}), is_new=True, metrics=METRICS)
    assert (found.serves, found.version, found.champion, found.is_new) == (True, 2, 2, True)
    assert (found.kind, found.metrics) == ("serves", METRICS)


def test_a_refused_version_waits_with_its_reason() -> None:
    found = judge(Registry({"a": (None, make_version(1, "new"))}))
    assert (found.serves, found.version, found.champion) == (False, 1, None)
    assert (found.reason, found.kind, found.gate) == ("reason of new", "needs-data", "guessing")
    assert (found.advice, found.num_images, found.split, found.of_class) == (
        *("add 40 images", 40, "training", "b"),
    )


def test_a_version_of_before_there_was_advice_is_withheld() -> None:
    version = make_version(1, "new")
    found = judge(Registry({"a": (None, replace(version, tags={GATE_REASON_TAG: "Below."}))}))
    assert (found.kind, found.reason, found.advice) == ("withheld", "Below.", None)


def test_a_promoted_version_that_was_taken_back_is_withheld() -> None:
    found = judge(Registry({"a": (None, make_version(1, "new", Advice(kind="serves")))}))
    assert (found.kind, found.serves) == ("withheld", False)


def test_a_task_that_failed_has_its_cause() -> None:
    [found] = failed_verdicts({"a": "out of memory"})
    assert (found.kind, found.reason, found.serves) == ("failed", "out of memory", None)


def test_a_champion_of_before_serves_on() -> None:
    found = judge(Registry({"a": (make_version(1, "old"), make_version(2, "new"))}))
    assert (found.serves, found.version, found.champion, found.reason) == (True, 2, 1, "reason of new")
    assert found.kind == "serves", "the task does, though its new version waits"


def test_a_version_that_lost_its_alias_has_the_reason_of_its_own_decision() -> None:
    others = {"a": make_version(1, "new")}
    found = judge(Registry({"a": (make_version(3, "newest"), None)}, others))
    assert (found.serves, found.version, found.champion, found.reason) == (True, 1, 3, "reason of new")

    found = judge(Registry({"a": (None, make_version(3, "newest"))}, others))
    assert (found.serves, found.version, found.champion, found.reason) == (False, 1, None, "reason of new")
    assert (found.kind, found.gate, found.advice) == ("needs-data", "guessing", "add 40 images")
    assert found.metrics == METRICS


def test_a_version_that_was_retired_says_so_before_the_reason_that_it_once_served_for() -> None:
    served = {"a": make_version(1, "new", Advice(kind="serves"))}
    found = judge(Registry({"a": (None, None)}, served, aliases={RETIRED: 1}))
    assert (found.kind, found.version) == ("withheld", 1)
    assert found.reason == (
        "The task is retired; `ship promote a 1` brings it back with this version; reason of new"
    )
    found = judge(Registry({"a": (None, None)}, served, aliases={RETIRED: 2}))
    assert found.reason == "reason of new", "another version was retired"


def test_the_registry_tells_of_all_versions_by_one_listing() -> None:
    registry = make_registry(client := FakeMlflow())
    for task in ("a", "b"):
        for digest in ("1" * 64, "2" * 64):
            tags = {GATE_TAG: "challenger", GATE_REASON_TAG: f"{task} {digest[0]}"}
            registry.register(task, digest=digest, source="", run_id=None, metrics=METRICS, tags=tags)
        registry.set_alias(task, "challenger", 2)
    client.calls.clear()
    registry = make_registry(client)
    found = find_verdicts(registry, [Published(task=task, digest="1" * 64) for task in ("a", "b")])
    assert [(one.version, one.reason, one.serves) for one in found] == [(1, "a 1", False), (1, "b 1", False)]
    assert client.calls == ["search_model_versions", "search_registered_models"]


def test_a_version_whose_record_waits_is_not_known_whatever_served_before() -> None:
    found = judge(Registry({"a": (make_version(1, "old"), None)}), metrics=METRICS)
    assert (found.serves, found.champion) == (None, None)
    assert found.metrics == METRICS


def test_metrics_of_an_artifact_of_before_are_those_of_its_version() -> None:
    assert judge(Registry({"a": (make_version(1, "new"), None)})).metrics == METRICS


def test_a_publication_that_the_store_did_not_tell_is_not_known() -> None:
    assert judge(Registry({"a": (make_version(1, "old"), None)}), digest=None).serves is None


@pytest.mark.parametrize("error", [RegistryDown("down"), RegistryMissing("none"), RegistryError("refused")])
def test_nothing_is_known_without_the_registry(error: RegistryError) -> None:
    assert judge(Registry(error=error)).serves is None


def test_without_publications_the_registry_is_not_asked() -> None:
    assert find_verdicts(Registry(error=RegistryDown("down")), []) == ()
