"""Checks before serving: an artifact is whole, of this task, for this backbone, and answers its probe."""

import asyncio
import json
from pathlib import Path

import pytest
import torch

from orchestrator.errors import StoreError
from orchestrator.serve.engine_api import Ask, Refusal
from orchestrator.serve.residency.loader import PromptLoader
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import digest_of
from ship.backbone import Backbone, load_backbone
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError
from ship.runtime.runtime import Runtime
from tests.factories import write_backbone
from tests.unit.orchestrator.serve.factory import draw_png, make_artifact, make_labels, make_served
from tests.unit.orchestrator.serve.residency.prompt_pool import apply


def load(loader: PromptLoader, task: str, version: int, digest: str) -> ServedVersion:
    return loader(PromptRef(task=task, version=version, digest=digest), lambda: False)


class Files:
    """A source with one artifact, whatever digest it is asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def fetch(self, digest: str) -> dict[str, bytes]:
        return self.files

    def fetch_rule(self, digest: str) -> bytes:
        return self.files[digest]


def test_a_prompt_from_the_store_answers_as_it_did(tmp_path: Path, backbone: Backbone, runtime: Runtime):
    store = PromptStore(LocalObjects(tmp_path))
    digest = store.publish("bolts", "0" * 64, make_artifact(backbone, "bolts", num_classes=4, seed=5)).digest
    served = load(PromptLoader(store, runtime), "bolts", 3, digest)
    assert (served.task, served.version, served.digest) == ("bolts", 3, digest)
    assert served.labels == make_labels("bolts", 4, 5)
    image_1CHW = torch.randint(0, 256, (1, 3, *backbone.image_size), dtype=torch.uint8)
    expected = make_served(runtime, "bolts", num_classes=4, seed=5)
    (found_C,) = runtime.infer(image_1CHW, [served.slot])
    (expected_C,) = runtime.infer(image_1CHW, [expected.slot])
    assert torch.equal(found_C, expected_C)


def test_the_prompt_of_another_task_is_refused(backbone: Backbone, runtime: Runtime):
    files = make_artifact(backbone, "nuts")
    with pytest.raises(ArtifactError, match="prompt of task 'nuts', but version 2 of task 'bolts'"):
        load(PromptLoader(Files(files), runtime), "bolts", 2, digest_of(files))


def test_the_prompt_of_another_backbone_is_refused(tmp_path: Path, runtime: Runtime):
    write_backbone(tmp_path / "other", seed=1)
    files = make_artifact(load_backbone(str(tmp_path / "other")), "bolts")
    with pytest.raises(ArtifactError, match="belongs to backbone"):
        load(PromptLoader(Files(files), runtime), "bolts", 1, digest_of(files))


def test_a_prompt_that_answers_its_probe_otherwise_is_refused(backbone: Backbone, runtime: Runtime):
    files = make_artifact(backbone, "bolts")
    card = json.loads(files["prompt.json"])
    card["probe"]["logits"] = [value + 1.0 for value in card["probe"]["logits"]]
    files["prompt.json"] = json.dumps(card).encode()
    with pytest.raises(ArtifactError, match="probe image"):
        load(PromptLoader(Files(files), runtime), "bolts", 1, digest_of(files))


def test_other_bytes_than_the_catalog_names_are_refused(backbone: Backbone, runtime: Runtime):
    with pytest.raises(ArtifactError, match="expected sha256"):
        load(PromptLoader(Files(make_artifact(backbone, "bolts")), runtime), "bolts", 1, "0" * 64)


def test_an_artifact_that_is_not_there_is_an_error_of_the_store(tmp_path: Path, runtime: Runtime):
    loader = PromptLoader(PromptStore(LocalObjects(tmp_path)), runtime)
    with pytest.raises(StoreError, match="no such object"):
        load(loader, "bolts", 1, "0" * 64)


def test_pictures_of_the_factory_differ():
    assert draw_png(0) != draw_png(1)


def test_more_tasks_than_a_real_pool_holds_are_all_answered(
    tmp_path: Path, backbone: Backbone, runtime: Runtime
):
    store = PromptStore(LocalObjects(tmp_path))
    entries, expected = {}, {}
    for seed, task in enumerate(("bolts", "nuts", "gears", "caps")):
        digest = store.publish(task, f"{seed:064x}", make_artifact(backbone, task, 4, seed)).digest
        entries[task] = CatalogEntry(version=1, digest=digest)
        expected[task] = make_served(runtime, task, num_classes=4, seed=seed)
    one_bytes = expected["bolts"].slot.num_bytes
    small = Runtime(backbone, capacity_bytes=int(2.5 * one_bytes))
    residency = Residency(PromptLoader(store, small))
    apply(residency, Catalog(entries=entries))
    assert residency.stats().num_resident == 2
    image_1CHW = torch.randint(0, 256, (1, 3, *backbone.image_size), dtype=torch.uint8)
    for task in ("caps", "bolts", "gears", "nuts", "bolts", "caps"):
        served = asyncio.run(residency.find(Ask(task=task)))
        assert served.labels == expected[task].labels
        (found_C,) = small.infer(image_1CHW, [served.slot])
        (expected_C,) = runtime.infer(image_1CHW, [expected[task].slot])
        assert torch.equal(found_C, expected_C)
        del served
    assert residency.stats().num_evictions >= 3
    assert residency.stats().resident_bytes == small.used_bytes == 2 * one_bytes


class Ruled:
    """A store with a champion of the task bolts, and rules for it."""

    def __init__(self, folder: Path, backbone: Backbone, runtime: Runtime) -> None:
        self.objects = LocalObjects(folder)
        self.store = PromptStore(self.objects)
        self.digest = self.store.publish("bolts", "0" * 64, make_artifact(backbone, "bolts")).digest
        loader = PromptLoader(self.store, runtime)
        self.residency = Residency(loader, read_rule=loader.read_rule)

    def write(self, rule: DecisionRule, task: str = "bolts", artifact: str | None = None) -> str:
        return self.store.rules.write(
            StoredRule(
                task=task,
                artifact=artifact or self.digest,
                rule=rule,
                by="anna",
                host="line-pc",
                time_s=1.0,
            )
        )

    def serve(self, rule: str | None) -> None:
        entry = CatalogEntry(version=1, digest=self.digest, rules={} if rule is None else {self.digest: rule})
        apply(self.residency, Catalog(entries={"bolts": entry}))

    def ask(self) -> ServedVersion | Refusal:
        return asyncio.run(self.residency.find(Ask(task="bolts")))


@pytest.fixture
def ruled(tmp_path: Path, backbone: Backbone, runtime: Runtime) -> Ruled:
    return Ruled(tmp_path, backbone, runtime)


def test_a_new_rule_is_followed_without_loading_the_prompt_again(ruled: Ruled) -> None:
    ruled.serve(None)
    before = ruled.ask()
    assert isinstance(before, ServedVersion)
    assert (before.rule, before.rule_digest) == (before.own_rule, None)
    rule = DecisionRule(temperature=2.0, thresholds={"bolts-0-1": 0.2}, recalls={"bolts-0-1": 0.99})
    digest = ruled.write(rule)
    ruled.serve(digest)
    after = ruled.ask()
    assert isinstance(after, ServedVersion)
    assert (after.rule, after.rule_digest) == (rule, digest)
    assert after.slot is before.slot, "the tensors stay where they are"
    assert before.rule_digest is None, "a request that began with the old rule keeps it"
    stats = ruled.residency.stats()
    assert (stats.num_loads, stats.num_resident, stats.num_swaps) == (1, 1, 0)
    state = ruled.residency.state("bolts")
    assert (state.rule, state.wanted_rule, state.problem) == (digest, digest, None)
    ruled.serve(None)
    again = ruled.ask()
    assert isinstance(again, ServedVersion)
    assert (again.rule, again.rule_digest, again.slot) == (before.rule, None, before.slot)


def broken_rules(ruled: Ruled) -> dict[str, tuple[str, str]]:
    """Digest of a rule that may not serve, and the problem that is named, by what is wrong."""
    damaged = ruled.write(DecisionRule(temperature=3.0))
    ruled.objects.put(f"rules/{damaged}.json", b"{}")
    content = b'{"schema": 9}'
    unknown = StoredRule.digest_of(content)
    ruled.objects.put_new(f"rules/{unknown}.json", content)
    other_task = ruled.write(DecisionRule(), task="nuts")
    other_artifact = ruled.write(DecisionRule(), artifact="1" * 64)
    other_classes = ruled.write(DecisionRule(thresholds={"dent": 0.5}))
    elsewhere = f"is that of artifact {'1' * 12} of task 'bolts'"
    return {
        "missing": ("0" * 64, f"decision rule {'0' * 12}: it is missing or damaged"),
        "damaged": (damaged, f"decision rule {damaged[:12]}: it is missing or damaged"),
        "no rule": (unknown, f"decision rule {unknown[:12]}: "),
        "another task": (other_task, "of task 'nuts', but version 1 of task 'bolts' names it"),
        "another artifact": (other_artifact, elsewhere),
        "other classes": (other_classes, "names classes that version 1 of task 'bolts' does not have: dent"),
    }


@pytest.mark.parametrize(
    "name", ["missing", "damaged", "no rule", "another task", "another artifact", "other classes"]
)
def test_with_a_rule_that_may_not_serve_a_task_decides_by_its_last_one(ruled: Ruled, name: str) -> None:
    good = ruled.write(DecisionRule(temperature=2.0))
    ruled.serve(good)
    broken, problem = broken_rules(ruled)[name]
    ruled.serve(broken)
    found = ruled.ask()
    assert isinstance(found, ServedVersion)
    assert found.rule_digest == good
    state = ruled.residency.state("bolts")
    assert (state.rule, state.wanted_rule) == (good, broken)
    assert problem in str(state.problem)
    assert str(ruled.objects.url) not in str(state.problem)
    assert ruled.residency.num_problems == 1
    ruled.serve(good)
    assert ruled.residency.state("bolts").problem is None


@pytest.mark.parametrize("name", ["missing", "another task", "other classes"])
def test_without_a_last_rule_a_task_is_refused_and_no_other(ruled: Ruled, name: str) -> None:
    broken, problem = broken_rules(ruled)[name]
    ruled.serve(broken)
    found = ruled.ask()
    assert isinstance(found, Refusal)
    assert found.reason == "not_loaded"
    assert problem in found.detail
    ruled.serve(ruled.write(DecisionRule(temperature=2.0)))
    assert isinstance(ruled.ask(), ServedVersion)
