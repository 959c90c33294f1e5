"""Making of an artifact's files from a PEFT adapter, measured on held-out images where there are any.

Shapes: B images.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ship.artifact.evidence import gather_held_out
from ship.artifact.held_out import HeldOut
from ship.artifact.making import held_out_answers, held_out_metrics, seal
from ship.artifact.peft import ADAPTER_MODEL, AdapterFiles, adapter_to_prompt
from ship.artifact.peft_config import ADAPTER_CONFIG, read_settings
from ship.backbone import Backbone
from ship.data import Split, TaskData
from ship.errors import ArtifactError, DataError
from ship.evaluation.accuracy import evaluate_logits
from ship.evaluation.attention_change import measure_attention
from ship.evaluation.prediction import predict_logits
from ship.method.prompts import Prompt
from ship.settings.config import METHOD_VERSION
from ship.tuning.preparation import bare_features, extract_features, fit_probe

__all__ = ["import_adapter", "split_labels"]

# Of an import that was not measured.
_NO_DATA = "0" * 64


def import_adapter(
    task: str,
    backbone: Backbone,
    files: AdapterFiles,
    *,
    labels: tuple[str, ...] | None = None,
    data: TaskData | None = None,
    thumbnails: bool = True,
    clock: Callable[[], float] = time.time,
) -> tuple[str, dict[str, bytes]]:
    """The task key and all files of an artifact that answers as a PEFT adapter does.

    Args:
        task: Name of the task.
        backbone: Backbone that the adapter was trained on.
        files: The adapter.
        labels: Class names in the order of the head's outputs; None for those of ``labels.txt``, else those
            of the data, else numbers from 0.
        data: Its held-out images measure the adapter, its training images the linear probe beside it.
        thumbnails: Whether small pictures of mistakes are kept among the held-out answers.
        clock: Current time, seconds since the epoch.

    Raises:
        ArtifactError: The adapter cannot be reproduced exactly, or the labels do not fit its head.
        DataError: The data has classes that the adapter does not.
    """
    prompt = adapter_to_prompt(files, backbone)
    names = _choose_labels(prompt.num_classes, labels, files, data)
    source = _describe_source(files)
    record: dict[str, Any] = {
        "source": source,
        "history": [],
        "search": [],
        "level_starts": list(prompt.level_starts),
        "gate": prompt.gate.tolist(),
        "labels": list(names),
        "time_s": clock(),
    }
    held_out: HeldOut | None = None
    metrics: dict[str, float] = {"num_params": _count_weights(prompt), "num_levels": prompt.num_levels}
    if data is not None:
        measured, answers, held_out = _measure(
            backbone, prompt, _in_order(data, names), thumbnails=thumbnails
        )
        metrics = {**measured, **metrics}
        record |= answers
    key = _task_key(source, names, backbone, data)
    artifact = seal(
        task,
        backbone,
        prompt,
        labels=names,
        metrics=metrics,
        record=record,
        readme=_readme(task, backbone, prompt, source, metrics),
        data_fingerprint=_NO_DATA if data is None else data.fingerprint,
        task_key=key,
        held_out=held_out,
    )
    return key, artifact


def _task_key(
    source: dict[str, Any], labels: tuple[str, ...], backbone: Backbone, data: TaskData | None
) -> str:
    """What the artifact follows from, as one sha256: the same import again is the same version."""
    values = {
        "source": source,
        "labels": labels,
        "backbone": backbone.fingerprint,
        "data": None if data is None else data.fingerprint,
        "method": METHOD_VERSION,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _choose_labels(
    num_classes: int, labels: tuple[str, ...] | None, files: AdapterFiles, data: TaskData | None
) -> tuple[str, ...]:
    where = "labels"
    if labels is None and files.labels is not None:
        where, labels = "labels.txt", split_labels(files.labels)
    if labels is None and data is not None:
        where, labels = "classes of the data", data.labels
    if labels is None:
        labels = tuple(map(str, range(num_classes)))
    if len(labels) != num_classes or not all(labels) or len(set(labels)) != len(labels):
        raise ArtifactError(
            f"{where}: expected {num_classes} distinct names, one for each output of the adapter's head, "
            f"found {len(labels)}: {', '.join(labels)[:200]}"
        )
    return labels


def split_labels(content: bytes) -> tuple[str, ...]:
    """Class names of a text, one a line; the mark of UTF-8 that Windows' editors write first is none of them.

    Raises:
        ArtifactError: It is not UTF-8.
    """
    try:
        return tuple(line.rstrip("\r") for line in content.decode("utf-8-sig").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise ArtifactError(f"labels: expected UTF-8 text, one name a line: {error}") from error


def _in_order(data: TaskData, labels: tuple[str, ...]) -> TaskData:
    """The data with its classes in the order of the adapter's head."""
    if unknown := sorted(set(data.labels) - set(labels)):
        raise DataError(
            f"the data has classes that the adapter does not: {', '.join(unknown)[:200]}; it has "
            f"{', '.join(labels)[:200]}: give the names of its outputs as --labels"
        )
    place_C = torch.tensor([labels.index(label) for label in data.labels])

    def move(split: Split | None) -> Split | None:
        return None if split is None else replace(split, labels_B=place_C[split.labels_B])

    train = move(data.train)
    assert train is not None, "a task has training images"
    return replace(data, labels=labels, train=train, val=move(data.val), test=move(data.test))


def _measure(
    backbone: Backbone, prompt: Prompt, data: TaskData, *, thumbnails: bool
) -> tuple[dict[str, float], dict[str, Any], HeldOut | None]:
    """Metrics of the adapter and of the linear probe on the same images, the record's part, the answers."""
    features = extract_features(backbone, data)
    probe = fit_probe(data, bare_features(backbone, features.train))
    held_out = data.held_out
    logits_BC = predict_logits(backbone, prompt, held_out.images_B3HW)
    probe_logits_BC = probe.logits(bare_features(backbone, features.held_out))
    evaluation = evaluate_logits(logits_BC, held_out.labels_B)
    of_probe = evaluate_logits(probe_logits_BC, held_out.labels_B)
    metrics = held_out_metrics(
        data,
        evaluation,
        measure_attention(backbone, prompt, held_out.images_B3HW),
        probe_accuracy=of_probe.accuracy,
        probe_balanced_accuracy=of_probe.balanced_accuracy,
    )
    record = {
        "confusion": evaluation.confusion_CC,
        "recall": evaluation.recalls,
        "held_out": held_out_answers(data, evaluation, of_probe.right),
    }
    return metrics, record, gather_held_out(data, logits_BC, probe_logits_BC, thumbnails=thumbnails)


def _describe_source(files: AdapterFiles) -> dict[str, Any]:
    contents = {ADAPTER_CONFIG: files.config, ADAPTER_MODEL: files.model, "head": files.head}
    return {
        "format": "peft",
        "base_model": read_settings(files.config).base_model,
        "sha256": {
            name: hashlib.sha256(content).hexdigest()
            for name, content in contents.items()
            if content is not None
        },
    }


def _count_weights(prompt: Prompt) -> int:
    """The gates of a prompt without tokens play no part."""
    return sum(weight.numel() for name, weight in prompt.named_parameters() if name != "gate")


def _readme(
    task: str, backbone: Backbone, prompt: Prompt, source: dict[str, Any], metrics: dict[str, float]
) -> str:
    accuracy = "not measured"
    if "accuracy" in metrics:
        accuracy = f"{metrics['accuracy']:.4f} (linear probe {metrics['probe_accuracy']:.4f})"
    return f"""# {task}

A PEFT LoRA adapter for the frozen backbone `{backbone.name}` (`{backbone.fingerprint[:12]}`), imported.

| | |
| --- | --- |
| classes | {prompt.num_classes} |
| rank | {prompt.config.rank} on {prompt.config.low_rank_on} |
| held-out accuracy | {accuracy} |
| sha256 of the adapter's weights | {source["sha256"][ADAPTER_MODEL]} |

`prompt.json` names every file's sha256; load it with `ship.load`.
"""
