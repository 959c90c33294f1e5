"""Artifacts with the keys of real ones, without torch: what the store and the recorder look at is real."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.events import Event
from orchestrator.store.documents.kept import KeptPicture
from orchestrator.store.prompt_store import PromptStore

TIME_S = 1_700_000_000.0
NUM_EPOCHS = 3


def make_key(text: str) -> str:
    """A task key."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_artifact(
    task: str = "bolts",
    key: str | None = None,
    *,
    accuracy: float = 0.9,
    accuracy_low: float | None = None,
    probe_accuracy: float = 0.8,
    data: str = "images",
    held_out: bytes | None = None,
    record: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The files of an artifact of two classes and four layers; by default without held-out answers.

    Of its record the values of ``record`` are others, or more.
    """
    low = accuracy - 0.05 if accuracy_low is None else accuracy_low
    metrics = {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": min(1.0, accuracy + 0.05),
        "probe_accuracy": probe_accuracy,
        "num_train": 100,
        "num_test": 200,
        "num_params": 1234,
        "num_levels": 2,
        "epochs": NUM_EPOCHS,
        "tuning_s": 12.5,
    }
    files = {
        "prompt.safetensors": f"tensors of {task} at {accuracy}".encode(),
        "record.json": json.dumps({**_record(accuracy), **(record or {})}).encode(),
        "README.md": f"# {task}\n".encode(),
    }
    if held_out is not None:
        files["held_out.json"] = held_out
    card = {
        "task": task,
        "task_key": key or make_key(task),
        "backbone": {"name": "bundled", "fingerprint": make_key("backbone")},
        "config": {"num_independent": 10, "threshold": "auto", "seed": 0},
        "level_starts": [0, 2],
        "labels": ["good", "bad"],
        "metrics": metrics,
        "data_fingerprint": make_key(data),
        "probe": {"image": "lattice-1", "logits": [0.5, -0.5]},
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
        "schema": 1,
        "method": "ship-1",
    }
    return {**files, "prompt.json": json.dumps(card).encode()}


def make_epoch(epoch: int) -> dict[str, Any]:
    """One entry of a history."""
    return {
        "epoch": epoch,
        "num_epochs": NUM_EPOCHS,
        "loss": 1.0 / epoch,
        "matching_loss": 0.5,
        "train_accuracy": 0.5 + 0.1 * epoch,
        "val_accuracy": None,
        "learning_rate": 1e-3,
        "time_s": TIME_S + 10 * epoch,
    }


def digest_of(files: dict[str, bytes]) -> str:
    """The digest of an artifact."""
    return hashlib.sha256(files["prompt.json"]).hexdigest()


def make_event(
    kind: str, task: str = "bolts", key: str | None = None, at_s: float = 0.0, **data: Any
) -> Event:
    """An event, ``at_s`` seconds after the start of time."""
    return Event(
        kind=kind,  # type: ignore[arg-type]
        task=task,
        key=key or make_key(task),
        attempt=1,
        time_s=TIME_S + at_s,
        data=data,
    )


def tune(store: PromptStore, task: str = "bolts", key: str | None = None, **artifact: Any) -> list[Event]:
    """Publish an artifact; returns the events of its whole life."""
    key = key or make_key(task)
    publication = store.publish(task, key, make_artifact(task, key, **artifact))
    epochs = [make_epoch(epoch) for epoch in range(1, NUM_EPOCHS + 1)]
    return [
        make_event("leased", task, key, worker="w1", params={"num_independent": "10"}),
        *(make_event("epoch", task, key, epoch.pop("time_s") - TIME_S, **epoch) for epoch in epochs),
        make_event("published", task, key, 40.0, digest=publication.digest, metrics={}),
    ]


def _record(accuracy: float) -> dict[str, Any]:
    num_right = round(200 * accuracy)
    good, bad = num_right - num_right // 2, num_right // 2
    return {
        "history": [make_epoch(epoch) for epoch in range(1, NUM_EPOCHS + 1)],
        "affinity": [
            [1.0, 0.99, 0.8, 0.7],
            [0.99, 1.0, 0.9, 0.8],
            [0.8, 0.9, 1.0, 0.98],
            [0.7, 0.8, 0.98, 1.0],
        ],
        "threshold": 0.95,
        "level_starts": [0, 2],
        "gate": [0.0, 0.0, 0.1, 0.2],
        "confusion": [[good, 100 - good], [100 - bad, bad]],
        "labels": ["good", "bad"],
        "time_s": TIME_S + 30,
    }


def make_kept(content: bytes, **changes: Any) -> KeptPicture:
    """What is kept beside a picture of bolts that was answered ``unsure``."""
    kept = KeptPicture(
        task="bolts",
        picture=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
        version=1,
        digest="a" * 64,
        rule=None,
        decision="unsure",
        because="several",
        probabilities=(("good", 0.6), ("scratched", 0.4)),
        distance=None,
        reason="unsure",
        time_s=10.0,
    )
    return replace(kept, **changes)
