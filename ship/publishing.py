"""Turns the result of a tuning into an artifact's files."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ship.artifact import CARD as CARD_FILE
from ship.artifact import README, RECORD, TENSORS, describe_files, pack, run_probe
from ship.backbone import Backbone
from ship.baking import bake
from ship.card import PromptCard
from ship.data import TaskData
from ship.tuning import TuneResult

__all__ = ["make_artifact"]


def make_artifact(
    task: str, task_key: str, backbone: Backbone, data: TaskData, result: TuneResult
) -> dict[str, bytes]:
    """All files of an artifact, name to content.

    Args:
        task: Name of the task.
        task_key: sha256 over data, settings, backbone and method version.
        backbone: That it was tuned on.
        data: That it was tuned with.
        result: What tuning found.
    """
    metrics = _metrics(data, result)
    files = {
        TENSORS: pack(result.prompt),
        RECORD: json.dumps(_record(data, result)).encode(),
        README: _readme(task, backbone, data, result, metrics).encode(),
    }
    card = PromptCard(
        task=task,
        task_key=task_key,
        backbone={
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "image_size": list(backbone.image_size),
            "interpolation": backbone.interpolation,
            "mean": list(backbone.info.mean),
            "std": list(backbone.info.std),
        },
        config=result.prompt.config,
        level_starts=result.prompt.level_starts,
        labels=data.labels,
        metrics=metrics,
        data_fingerprint=data.fingerprint,
        probe={"image": "lattice-1", "logits": run_probe(backbone, bake(backbone, result.prompt))},
        files=describe_files(files),
    )
    return {**files, CARD_FILE: card.to_json()}


def _metrics(data: TaskData, result: TuneResult) -> dict[str, float]:
    return {
        "accuracy": result.evaluation.accuracy,
        "accuracy_low": result.evaluation.low,
        "accuracy_high": result.evaluation.high,
        "probe_accuracy": result.preparation.probe_accuracy,
        "num_train": len(data.train.labels_B),
        "num_test": len(data.held_out.labels_B),
        "num_params": result.prompt.num_trained(),
        "num_levels": result.prompt.num_levels,
        "epochs": len(result.history),
        "tuning_s": round(result.tuning_s, 3),
    }


def _record(data: TaskData, result: TuneResult) -> dict[str, Any]:
    return {
        "history": [asdict(report) for report in result.history],
        "affinity": result.preparation.affinity,
        "threshold": result.preparation.threshold,
        "level_starts": list(result.prompt.level_starts),
        "gate": result.prompt.gate.tolist(),
        "confusion": result.evaluation.confusion_CC,
        "labels": list(data.labels),
        "time_s": result.history[-1].time_s,
    }


def _readme(
    task: str, backbone: Backbone, data: TaskData, result: TuneResult, metrics: Mapping[str, float]
) -> str:
    config = result.prompt.config
    labels = ", ".join(data.labels[:20]) + (", ..." if len(data.labels) > 20 else "")
    return f"""# {task}

A SHIP prompt for the frozen backbone `{backbone.name}` (`{backbone.fingerprint[:12]}`).

| | |
| --- | --- |
| classes | {len(data.labels)}: {labels} |
| held-out accuracy | {metrics["accuracy"]:.4f} (95% interval {metrics["accuracy_low"]:.4f} to \
{metrics["accuracy_high"]:.4f}, {metrics["num_test"]:.0f} images) |
| linear probe, same images | {metrics["probe_accuracy"]:.4f} |
| training images | {metrics["num_train"]:.0f} |
| trained parameters | {metrics["num_params"]:.0f} |
| levels start at layers | {", ".join(map(str, result.prompt.level_starts))} \
(threshold {result.preparation.threshold:.4f}) |
| settings | K={config.num_independent}, start {config.start}, learning rate {config.learning_rate:g}, \
{metrics["epochs"]:.0f} epochs, seed {config.seed} |

`prompt.json` names every file's sha256; load it with `ship.artifact.load`.
"""
