"""Section of a report about one task: every figure as a plain value, from an artifact and its verdict.

Knows neither the store nor HTML. Records of earlier versions lack parts: these are None or empty.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ship.artifact.held_out import HeldOut
from ship.decision.mistakes import find_good_label, find_mistakes, find_narrow
from ship.evaluation.learning_curve import LearningCurve
from ship.findings import find_warnings

__all__ = ["Section", "make_section"]

NUM_MISTAKES, NUM_NARROW, NUM_CONFUSED = 12, 6, 10
# A wider matrix is no help to the eye; its most frequent confusions are listed instead.
MAX_MATRIX = 20
_COSTS = ("tuning_s", "search_s", "epochs", "num_params", "num_train")
_SHARES = (
    *("accuracy", "accuracy_low", "accuracy_high", "probe_accuracy", "balanced_accuracy"),
    *("probe_balanced_accuracy", "calibration_error"),
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a report.

    Attributes:
        values: JSON values.
        thumbnails: JPEG by the digest of a picture that the section names.
    """

    values: dict[str, Any]
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)


def make_section(
    card: Mapping[str, Any],
    record: Mapping[str, Any],
    held_out: HeldOut | None,
    *,
    verdict: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
) -> Section:
    """The section about a task.

    Args:
        card: Content of ``prompt.json``.
        record: Content of ``record.json``.
        held_out: Answers on the held-out images, if they were kept.
        verdict: The verdict, with the task's name as ``task``.
        before: Card of the version before, if there is one.
    """
    metrics = card["metrics"]
    pictures, thumbnails = _pictures(held_out, card)
    classes = _classes(record)
    values = {
        "task": str(card["task"]),
        "verdict": {name: value for name, value in verdict.items() if name != "task"},
        **_figures(metrics),
        "train_accuracy": _train_accuracy(record),
        "classes": classes,
        "worst_class": _worst(classes),
        **_confusion(record),
        **pictures,
        "warnings": _warnings(metrics, record),
        "learning_curve": _learning_curve(metrics, record),
        "settings": _settings(card),
        "backbone": card["backbone"]["name"],
        "data_fingerprint": card["data_fingerprint"],
        "instead_of": _instead_of(record),
        "choice": str(record.get("choice") or ""),
        "decision": _decision(card.get("decision") or {}),
        "changes": None if before is None else _changes(card, before),
    }
    return Section(values=values, thumbnails=thumbnails)


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    cost = {name: _number(metrics.get(name)) for name in _COSTS}
    return {
        **{name: _number(metrics.get(name)) for name in (*_SHARES, "num_test")},
        "cost": {**cost, "device_bytes": _device_bytes(metrics)},
    }


def _settings(card: Mapping[str, Any]) -> dict[str, Any]:
    # Method ship-1 knew one kind, and did not name it.
    return {"kind": "ship", **card["config"]}


def _classes(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels, confusion = record.get("labels") or [], record.get("confusion") or []
    train = record.get("train_counts") or [None] * len(labels)
    if not confusion:
        # Imported without images.
        return []
    return [
        {
            "label": str(label),
            "train": count,
            "images": sum(row),
            "right": row[place],
            "recall": row[place] / sum(row) if sum(row) else None,
        }
        for place, (label, row, count) in enumerate(zip(labels, confusion, train, strict=True))
    ]


def _worst(classes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return min((one for one in classes if one["images"]), key=lambda one: one["recall"], default=None)


def _confusion(record: Mapping[str, Any]) -> dict[str, Any]:
    labels, confusion = record.get("labels") or [], record.get("confusion") or []
    confused = [
        {"truth": str(labels[truth]), "answer": str(labels[answer]), "images": number}
        for truth, row in enumerate(confusion)
        for answer, number in enumerate(row)
        if number and truth != answer
    ]
    confused.sort(key=lambda one: -one["images"])
    return {
        "confusion": confusion if len(labels) <= MAX_MATRIX else None,
        "confused": confused[:NUM_CONFUSED],
    }


def _pictures(held_out: HeldOut | None, card: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The most certain mistakes, and the right answers that a slight change would turn."""
    if held_out is None:
        return {"good_label": None, "num_mistakes": None, "mistakes": [], "narrow": []}, {}
    good = find_good_label(held_out.labels)
    temperature = float((card.get("decision") or {}).get("temperature", 1.0))
    found = find_mistakes(
        held_out.labels_B,
        held_out.logits_BC,
        None if good is None else held_out.labels.index(good),
        temperature,
    )
    narrow = find_narrow(held_out.labels_B, held_out.logits_BC, NUM_NARROW)
    mistakes = [
        {
            **_picture(held_out, one.place),
            "answer": held_out.labels[one.answer],
            "probability": one.probability,
            "truth_probability": one.truth_probability,
            "is_false_accept": one.is_false_accept,
        }
        for one in found[:NUM_MISTAKES]
    ]
    shown = [*(one.place for one in found[:NUM_MISTAKES]), *narrow]
    return {
        "good_label": good,
        "num_mistakes": len(found),
        "num_false_accepts": sum(one.is_false_accept for one in found),
        "mistakes": mistakes,
        "narrow": [
            {**_picture(held_out, place), **_runner_up(held_out, place, temperature)} for place in narrow
        ],
    }, {
        held_out.digests[place]: held_out.thumbnails[place] for place in shown if place in held_out.thumbnails
    }


def _picture(held_out: HeldOut, place: int) -> dict[str, Any]:
    return {
        "path": held_out.paths[place],
        "digest": held_out.digests[place],
        "truth": held_out.labels[held_out.labels_B[place]],
    }


def _runner_up(held_out: HeldOut, place: int, temperature: float) -> dict[str, Any]:
    shares = _softmax(held_out.logits_BC[place], temperature)
    first, second = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)[:2]
    return {
        "probability": shares[first],
        "runner_up": held_out.labels[second],
        "runner_up_probability": shares[second],
    }


def _softmax(logits_C: Sequence[float], temperature: float) -> list[float]:
    highest = max(logits_C)
    powers = [math.exp((logit - highest) / temperature) for logit in logits_C]
    return [power / sum(powers) for power in powers]


def _warnings(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    found = []
    leaked = record.get("leaked") or {}
    if number := leaked.get("count"):
        named = ", ".join(map(str, leaked["paths"][:3]))
        so = "they were left out" if leaked.get("left_out") else "the accuracy is too high"
        found.append(
            f"{number} held-out images are trained on as well, pixel for pixel ({named}): {so}; `ship check` "
            "lists all copies"
        )
    counts = [count for count in record.get("train_counts") or () if count is not None]
    if counts and min(counts) * 3 < max(counts):
        found.append(f"the largest class has {max(counts)} training images, the smallest {min(counts)}")
    return found + find_warnings(metrics)


def _learning_curve(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any] | None:
    points = [(int(n), float(accuracy)) for n, accuracy in record.get("learning_curve") or ()]
    curve = LearningCurve.fit(points, int(metrics.get("num_test", 0)))
    if curve is None:
        return None
    own = curve.through(float(metrics["accuracy"]))
    numbers = [curve.num_images * factor for factor in (1, 2, 4)]
    return {
        "probe": [{"images": n, "accuracy": accuracy} for n, accuracy in points],
        "expected": [{"images": n, "accuracy": own.accuracy(n)} for n in numbers],
        "is_flat": own.is_flat,
    }


def _decision(rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of the decision rule on held-out images that it was not chosen on; None without any."""
    expected = rule.get("expected") or {}
    if not expected:
        return None
    recalls = expected.get("recall") or {}
    promised = [
        {"label": label, "promised": promise, "expected": _share(recalls.get(label))}
        for label, promise in (rule.get("recalls") or {}).items()
    ]
    names = ("accuracy", "unsure", "far", "false_rejects", "escapes")
    return {
        "temperature": _number(rule.get("temperature")),
        "promised": promised,
        "shares": [{"name": name, **_share(expected[name])} for name in names if expected.get(name)],
    }


def _share(found: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _number((found or {}).get(name)) for name in ("share", "low", "high")}


def _train_accuracy(record: Mapping[str, Any]) -> float | None:
    history = record.get("history") or [{}]
    return _number(history[-1].get("train_accuracy"))


def _instead_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    found = record.get("instead_of")
    return None if not found else {name: value for name, value in found.items() if name != "history"}


def _changes(card: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    now, then = card["config"], before["config"]
    return {
        "digest": before.get("digest"),
        "accuracy": _number(before["metrics"].get("accuracy")),
        "gain": _difference(card, before),
        "has_same_data": card["data_fingerprint"] == before["data_fingerprint"],
        "has_same_backbone": card["backbone"] == before["backbone"],
        "settings": [
            {"name": name, "before": then.get(name), "now": now.get(name)}
            for name in sorted(set(now) | set(then))
            if now.get(name) != then.get(name)
        ],
    }


def _difference(card: Mapping[str, Any], before: Mapping[str, Any]) -> float | None:
    now, then = (_number(one["metrics"].get("accuracy")) for one in (card, before))
    return None if now is None or then is None else now - then


def _device_bytes(metrics: Mapping[str, Any]) -> float | None:
    sizes = [value for name, value in metrics.items() if name.endswith("_bytes")]
    return sum(sizes) if sizes else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
