"""Publishing and fetching a task's prompt, beside a checkpoint of the whole backbone, in the same store."""

import hashlib
import itertools
import tempfile

import fsspec
import torch
from safetensors.torch import save

from ship.artifact.making import make_artifact
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.benchmarks.harness import Report, compare
from tests.benchmarks.synthetic import default_k, find_backbone, make_data

__all__ = ["LEGEND", "run"]

LEGEND = {
    "publish": "a prompt's files, each under its digest and read back, and the task's marker",
    "fetch": "a prompt's files, their digests checked",
    "write checkpoint": "all weights as one safetensors file, written and read back by digest",
    "read checkpoint": "that file, its digest checked",
}


def run(report: Report, *, names: list[str], url: str | None, rounds: int) -> None:
    """Measure in the store at ``url``, or in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ship-bench-") as folder:
        for name in names:
            # A store of its own: what is published already would not be published again.
            _run(report, name, f"{url or folder}/{name}", rounds)


def _run(report: Report, name: str, url: str, rounds: int) -> None:
    from orchestrator.store.objects.open import open_objects
    from orchestrator.store.prompt_store import PromptStore
    from orchestrator.store.publication import Publication

    backbone = find_backbone(name, torch.device("cpu"))
    data = make_data(backbone, 20, seed=0)
    num_attribute = min(10, backbone.info.num_tokens)
    config = TuneConfig(
        num_independent=default_k(name), num_attribute=num_attribute, epochs=1, warmup_epochs=0, batch_size=2
    )
    result = tune(backbone, data, config)
    # Another task each time: what is there already would not be written again.
    artifacts = {
        number: make_artifact(f"bench-{number}", backbone, data, result, task_key=f"{number:064x}")
        for number in range(rounds + 2)
    }
    checkpoint = save({key: value.contiguous() for key, value in backbone.vit.state_dict().items()})
    store = PromptStore(open_objects(url))
    system, root = fsspec.url_to_fs(url)
    numbers = itertools.count()
    digest = hashlib.sha256(checkpoint).hexdigest()

    def publish() -> Publication:
        number = next(numbers)
        return store.publish(f"bench-{number}", f"{number:064x}", artifacts[number])

    published = publish()

    def read_checkpoint() -> None:
        assert hashlib.sha256(system.cat_file(f"{root}/checkpoint.safetensors")).hexdigest() == digest

    def write_checkpoint() -> None:
        system.pipe_file(f"{root}/checkpoint.safetensors", checkpoint)
        read_checkpoint()

    report.add(
        compare(
            {
                "write checkpoint": write_checkpoint,
                "publish": publish,
                "read checkpoint": read_checkpoint,
                "fetch": lambda: store.fetch(published.digest),
            },
            [("publish", "write checkpoint", None), ("fetch", "read checkpoint", None)],
            settings={"backbone": name, "store": "folder" if "://" not in url else url.split("://")[0]},
            rounds=rounds,
            device=torch.device("cpu"),
            facts={
                "prompt bytes": sum(len(content) for content in artifacts[0].values()),
                "checkpoint bytes": len(checkpoint),
            },
        )
    )
