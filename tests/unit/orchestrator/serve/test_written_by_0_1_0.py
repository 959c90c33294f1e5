"""A store that version 0.1.0 wrote is read and served; the registry's half is in ``tests/integration``."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from orchestrator.planning.estimates import TuningRun
from orchestrator.serve.engine.deployment import EngineReplica
from orchestrator.serve.ingress.app import make_app
from orchestrator.serve.ingress.engine_client import RayEngine
from orchestrator.serve.options import EngineOptions
from orchestrator.store.documents.catalog import Canary
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.run_stats import RunStats
from ship.artifact.files import insert_verified, load
from ship.backbone import Backbone, load_backbone
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from tests.unit.orchestrator.serve.factory import Handle, LoadedBackbone

WRITTEN = Path(__file__).parents[3] / "fixtures" / "written-by-0.1.0"
EXPECTED: dict[str, dict[str, dict[str, Any]]] = json.loads((WRITTEN / "expected.json").read_text())
VERSIONS = [(task, version) for task, versions in EXPECTED.items() for version in versions]
# Another processor, and batches of other sizes, sum in another order.
CLOSE = 1e-3


@pytest.fixture(scope="module")
def bundled() -> Backbone:
    return load_backbone("bundled")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN / "store", tmp_path / "store"))


@pytest.fixture
def store(folder: Path) -> PromptStore:
    return PromptStore(LocalObjects(folder))


@pytest.fixture
def replica(bundled: Backbone, folder: Path) -> Iterator[EngineReplica]:
    replica = EngineReplica(
        LoadedBackbone(bundled), str(folder), 1, EngineOptions(slot_bytes=64 << 20, precision="float32")
    )
    yield replica
    replica._follower.stop()


@pytest.mark.parametrize(("task", "version"), VERSIONS)
def test_an_artifact_is_loaded_and_gives_the_same_scores(bundled: Backbone, task: str, version: str) -> None:
    expected = EXPECTED[task][version]
    loaded = load(WRITTEN / "store" / "artifacts" / expected["digest"])
    runtime = Runtime(bundled, capacity_bytes=64 << 20)
    image_3HW = decode_image(
        (WRITTEN / f"{task}.png").read_bytes(), size=bundled.image_size, interpolation=bundled.interpolation
    )

    scores = runtime.infer(torch.as_tensor(image_3HW).unsqueeze(0), [insert_verified(runtime, loaded)])[0]

    assert loaded.card.task == task
    assert list(loaded.card.labels) == expected["labels"]
    np.testing.assert_allclose(scores.numpy(), expected["logits"], atol=CLOSE)


def test_the_catalog_says_what_is_served(store: PromptStore) -> None:
    catalog, _ = store.read_catalog()

    bolts, nuts = catalog.entries["bolts"], catalog.entries["nuts"]
    assert bolts.versions == {int(number): found["digest"] for number, found in EXPECTED["bolts"].items()}
    assert (bolts.version, bolts.canary, bolts.shadow) == (1, Canary(version=2, share=0.25), None)
    assert nuts.versions == {int(number): found["digest"] for number, found in EXPECTED["nuts"].items()}
    assert (nuts.version, nuts.canary, nuts.shadow) == (2, None, None)


def test_publications_name_artifacts_that_can_be_fetched(store: PromptStore) -> None:
    published = store.all_published().values()

    assert sorted((one.task, one.digest) for one in published) == sorted(
        (task, EXPECTED[task][version]["digest"]) for task, version in VERSIONS
    )
    assert all(store.fetch(one.digest) for one in published)


def test_tokens_keep_their_scope_and_their_bytes(store: PromptStore) -> None:
    tokens, _ = store.read_tokens()

    (name,) = tokens.by_name
    scope = tokens.by_name[name].scope
    assert name == "line-1"
    assert scope.may_predict("bolts")
    assert not scope.may_predict("nuts")
    assert not scope.may_read_metrics()
    assert tokens.has_live(tokens.by_name[name].secrets[0].created_s)
    assert tokens.to_json() == (WRITTEN / "store" / "tokens.json").read_bytes()


def test_statistics_of_tunings_are_read(folder: Path, bundled: Backbone) -> None:
    runs = RunStats(LocalObjects(folder)).read(bundled.fingerprint)

    assert len(runs) == len(VERSIONS)
    assert all(isinstance(run, TuningRun) and run.tuning_s > 0 for run in runs)


def test_an_endpoint_gives_the_same_probabilities(replica: EngineReplica, bundled: Backbone) -> None:
    async def ask_all() -> None:
        transport = httpx.ASGITransport(make_app(RayEngine(Handle(replica), 30.0), bundled.info))
        async with httpx.AsyncClient(transport=transport, base_url="http://ship") as client:
            for task, version in VERSIONS:
                reply = await client.post(
                    "/v1/predict",
                    content=(WRITTEN / f"{task}.png").read_bytes(),
                    headers={"Ship-Task": task, "Ship-Version": version},
                )
                assert reply.status_code == 200, reply.text
                found, expected = reply.json(), EXPECTED[task][version]
                assert (str(found["version"]), found["digest"]) == (version, expected["digest"])
                wanted = dict(zip(expected["labels"], expected["probabilities"], strict=True))
                assert found["probabilities"] == pytest.approx(wanted, abs=CLOSE)

    asyncio.run(ask_all())
