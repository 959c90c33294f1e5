"""Publication and fetching of a prompt beside a checkpoint of the whole backbone, in the same store."""

import hashlib
import tempfile
from typing import TYPE_CHECKING

import fsspec
import torch
from safetensors.torch import save

from ship.artifact.making import make_artifact
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.benchmarks.harness import Report, compare
from tests.benchmarks.synthetic import default_k, find_backbone, make_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.store.documents.publication import Publication
    from ship.backbone import Backbone

__all__ = ["LEGEND", "run"]

LEGEND = {
    "publish": "a prompt's files, each under its digest and read back, and the task's marker",
    "fetch": "a prompt's files, their digests checked",
    "write checkpoint": "all weights as one safetensors file, written and read back by digest",
    "read checkpoint": "that file, its digest checked",
}


def run(report: Report, *, names: list[str], url: str | None, rounds: int) -> None:
    """Measure in the store at ``url``, or in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ship-bench-") as folder:
        for name in names:
            # A store for each: a prompt that is published already is not published again.
            _run(report, name, f"{url or folder}/{name}", rounds)


def _run(report: Report, name: str, url: str, rounds: int) -> None:
    from orchestrator.store.objects.open import open_objects
    from orchestrator.store.prompt_store import PromptStore

    backbone = find_backbone(name, torch.device("cpu"))
    artifacts = _make_artifacts(backbone, name, rounds + 2)
    checkpoint = save({key: value.contiguous() for key, value in backbone.vit.state_dict().items()})
    store = PromptStore(open_objects(url))
    system, root = fsspec.url_to_fs(url)
    numbers = iter(range(len(artifacts)))
    digest = hashlib.sha256(checkpoint).hexdigest()

    def publish() -> "Publication":
        number = next(numbers)
        return store.publish(f"bench-{number}", f"{number:064x}", artifacts[number])

    published = publish()

    def read_checkpoint() -> None:
        assert hashlib.sha256(system.cat_file(f"{root}/checkpoint.safetensors")).hexdigest() == digest

    def write_checkpoint() -> None:
        system.pipe_file(f"{root}/checkpoint.safetensors", checkpoint)
        read_checkpoint()

    rows = {
        "write checkpoint": write_checkpoint,
        "publish": publish,
        "read checkpoint": read_checkpoint,
        "fetch": lambda: store.fetch(published.digest),
    }
    pairs = [("publish", "write checkpoint", None), ("fetch", "read checkpoint", None)]
    settings = {"backbone": name, "store": "folder" if "://" not in url else url.split("://")[0]}
    prompt_bytes = sum(len(content) for content in artifacts[0].values())
    facts = {"prompt bytes": prompt_bytes, "checkpoint bytes": len(checkpoint)}
    cpu = torch.device("cpu")
    report.add(compare(rows, pairs, settings=settings, rounds=rounds, device=cpu, facts=facts))


def _make_artifacts(backbone: "Backbone", name: str, number: int) -> "list[Mapping[str, bytes]]":
    """Artifacts of as many tasks: an artifact that is published already is not written again."""
    data = make_data(backbone, 20, seed=0)
    config = TuneConfig(
        num_independent=default_k(name),
        num_attribute=min(10, backbone.info.num_tokens),
        epochs=1,
        warmup_epochs=0,
        batch_size=2,
    )
    result = tune(backbone, data, config)
    return [make_artifact(f"bench-{n}", backbone, data, result, task_key=f"{n:064x}") for n in range(number)]
