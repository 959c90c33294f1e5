"""What the events and the artifact of a task say to MLflow: tags, points of curves, the data set. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.events import Event
from orchestrator.manifest.floors import Floors
from orchestrator.registry.runs import DataSet, Point
from orchestrator.registry.versions import BACKBONE_TAG, DATA_TAG, FINGERPRINT_TAG, HELD_OUT_TAG, own_tags

__all__ = [
    "backbone_tags",
    "curve_points",
    "data_set",
    "data_tags",
    "final_points",
    "floors_of",
    "lineage_of",
    "manifest_tags",
    "tags_of",
]

_CURVES = {
    "loss": "loss",
    "matching_loss": "matching_loss",
    "train_accuracy": "train_accuracy",
    "val_accuracy": "val_accuracy",
    "val_loss": "val_loss",
    "lr": "learning_rate",
    "learning_rate": "learning_rate",
}


def floors_of(event: Event) -> Floors:
    """The least that the version of a published task has to reach."""
    return Floors.from_dict(event.data.get("floors", {}))


def tags_of(event: Event) -> dict[str, str]:
    """Tags of a run for an event."""
    if event.kind == "leased":
        tags = {"ship.attempt": str(event.attempt), "ship.worker": str(event.data.get("worker", ""))}
        return manifest_tags(event) | lineage_of(event) | tags
    if event.kind == "published":
        return manifest_tags(event) | {"ship.digest": str(event.data["digest"])}
    if event.kind in ("failed", "retried"):
        prefix = "ship" if event.kind == "failed" else "ship.retry"
        named = {
            f"{prefix}.{name}": str(event.data[name]) for name in ("cause", "detail") if event.data.get(name)
        }
        return named if event.kind == "failed" else {**named, "ship.retries": str(event.attempt)}
    return {}


def manifest_tags(event: Event) -> dict[str, str]:
    """Tags that the manifest gives the task, none of which can pass for one of ours or of MLflow's."""
    return own_tags({str(name): str(value) for name, value in event.data.get("tags", {}).items()})


def lineage_of(event: Event) -> dict[str, str]:
    """Tags that tell where a tuning comes from, see ``orchestrator.train.lineage``."""
    return {str(name): str(value) for name, value in event.data.get("lineage", {}).items()}


def backbone_tags(card: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a version that name its backbone."""
    backbone = card["backbone"]
    return {BACKBONE_TAG: backbone["name"], FINGERPRINT_TAG: backbone["fingerprint"]}


def data_tags(card: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a version by which those that were measured on the same images are found."""
    held_out = (record.get("held_out") or {}).get("fingerprint")
    return {DATA_TAG: card["data_fingerprint"]} | ({HELD_OUT_TAG: str(held_out)} if held_out else {})


def data_set(events: Sequence[Event], card: Mapping[str, Any] | None) -> DataSet | None:
    """The data set of a tuning, by its events or else by its artifact; None if neither tells it."""
    for event in events:
        if (found := event.data.get("data_set")) is not None:
            return DataSet(**found)
    fingerprint = "" if card is None else str(card["data_fingerprint"] or "")
    return DataSet(fingerprint=fingerprint) if fingerprint else None


def curve_points(epochs: Sequence[Mapping[str, Any]], known: set[int]) -> list[Point]:
    """Points of all curves, each epoch once."""
    points: list[Point] = []
    seen = set(known)
    for epoch in epochs:
        step = int(epoch["epoch"])
        if step not in seen:
            seen.add(step)
            points += [
                Point(name=curve, value=float(epoch[name]), step=step, time_s=epoch["time_s"])
                for name, curve in _CURVES.items()
                if _is_finite(epoch.get(name))
            ]
    return points


def final_points(metrics: Mapping[str, Any], time_s: float) -> list[Point]:
    """Points of metrics that are measured once, in the end."""
    return [
        Point(name=name, value=float(value), step=0, time_s=time_s)
        for name, value in metrics.items()
        if _is_finite(value)
    ]


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
