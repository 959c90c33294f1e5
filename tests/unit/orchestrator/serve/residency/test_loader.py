"""Checks before serving: an artifact is whole, of this task, for this backbone, and answers its probe."""

import asyncio
import json
from pathlib import Path

import pytest
import torch

from orchestrator.errors import StoreError
from orchestrator.serve.engine_api import Ask
from orchestrator.serve.residency.loader import PromptLoader
from orchestrator.serve.residency.residency import Residency
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import digest_of
from ship.backbone import Backbone, load_backbone
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
