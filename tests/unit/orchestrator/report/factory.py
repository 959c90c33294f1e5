"""Artifacts of made-up tasks for reports: card, record and held-out answers, with names as they come."""

import io
import math
from typing import Any

from PIL import Image, ImageDraw

from ship.artifact.held_out import HeldOut

__all__ = ["HOSTILE", "draw_part", "make_card", "make_held_out", "make_record", "make_verdict"]

# Markup, an attribute's end, a half character, a reversal of the writing direction.
HOSTILE = "<script>alert('x')</script>\"onload=\"y\udcff\u202e&amp;{{7*7}}{% raw %}"


def make_verdict(task: str = "welds", kind: str = "serves", **values: object) -> dict[str, Any]:
    return {
        "task": task,
        "kind": kind,
        "serves": kind == "serves",
        "version": 2,
        "champion": 2 if kind == "serves" else None,
        "reason": "Accuracy 0.8000 beats the linear probe's 0.7000, and there is no champion yet.",
        "gate": None if kind == "serves" else "guessing",
        "advice": None if kind == "serves" else "add about 40 held-out images",
        **values,
    }


def make_card(task: str = "welds", **values: Any) -> dict[str, Any]:
    metrics = {
        "accuracy": 0.8,
        "accuracy_low": 0.5841,
        "accuracy_high": 0.9193,
        "probe_accuracy": 0.7,
        "balanced_accuracy": 0.8125,
        "probe_balanced_accuracy": 0.7125,
        "calibration_error": 0.0812,
        "min_recall": 0.75,
        "num_test": 20,
        "num_train": 80,
        "num_params": 3168,
        "epochs": 30,
        "tuning_s": 75.25,
        "search_s": 0.0,
        "prompts_bytes": 40960,
        "head_bytes": 396,
        **values.pop("metrics", {}),
    }
    return {
        "task": task,
        "metrics": metrics,
        "config": {"kind": "ship", "learning_rate": 0.02, "epochs": 30},
        "backbone": {"name": "bundled"},
        "data_fingerprint": "d" * 64,
        "decision": {
            "temperature": 2.0,
            "thresholds": {"scratch": 0.2},
            "recalls": {"scratch": 0.99},
            "expected": {
                "accuracy": {"share": 0.95, "low": 0.76, "high": 0.99, "num": 19, "of": 20},
                "unsure": {"share": None, "low": 0.0, "high": 1.0, "num": 0, "of": 0},
                "recall": {"scratch": {"share": 0.9, "low": 0.6, "high": 0.98, "num": 9, "of": 10}},
            },
        },
        **values,
    }


def make_record(labels: tuple[str, ...] = ("good", "scratch"), **values: Any) -> dict[str, Any]:
    """Twenty held-out images: of each class ten, of which eight are right."""
    number = len(labels)
    confusion = [
        [8 if row == column else 2 * (column == (row + 1) % number) for column in range(number)]
        for row in range(number)
    ]
    return {
        "labels": list(labels),
        "confusion": confusion,
        "train_counts": [60, *[20] * (number - 1)],
        "leaked": {"count": 0, "paths": []},
        "learning_curve": [[20, 0.55], [40, 0.625], [80, 0.7]],
        "history": [{"train_accuracy": 0.9875}],
        "choice": "",
        "instead_of": None,
        **values,
    }


def make_held_out(labels: tuple[str, ...] = ("good", "scratch"), name: str = "image") -> HeldOut:
    """The answers that ``make_record`` counts."""
    number = len(labels)
    truths = [label for label in range(number) for _ in range(10)]
    logits, places = [], range(len(truths))
    for place, truth in enumerate(truths):
        answer = truth if place % 10 < 8 else (truth + 1) % number
        logits.append(tuple(1.0 + place / 10 if label == answer else 0.0 for label in range(number)))
    return HeldOut(
        labels=labels,
        paths=tuple(f"{name}-{place}.png" for place in places),
        digests=tuple(f"{hash_of(name, place):032x}" for place in places),
        labels_B=tuple(truths),
        logits_BC=tuple(logits),
        thumbnails={place: draw_part(place) for place in places if place % 10 >= 8 or place % 10 < 3},
        num_images=len(truths),
    )


def hash_of(name: str, place: int) -> int:
    return sum(ord(char) for char in name) * 1000 + place


def draw_part(place: int) -> bytes:
    """A picture of a plate with a scratch."""
    image = Image.new("RGB", (96, 96), (90, 96, 104))
    drawing = ImageDraw.Draw(image)
    drawing.ellipse((14, 14, 82, 82), fill=(150, 156, 164), outline=(60, 64, 70))
    if place >= 10:
        x, y = 48 + 26 * math.cos(place), 48 + 26 * math.sin(place)
        drawing.line((48, 48, x, y), fill=(230, 232, 236), width=3)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return content.getvalue()
