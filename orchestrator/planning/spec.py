"""The specification of a task for a worker, and the task key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.manifest.floors import Floors
from orchestrator.manifest.model import Terms
from ship.data import DataSource
from ship.settings.config import METHOD_VERSION, TuneConfig
from ship.settings.search_config import SearchConfig
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["PlannedTask", "TaskSpec", "task_key"]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Specification of a task for a worker.

    Attributes:
        name: Task name.
        key: 64 hex digits; the same key means the same prompt.
        source: Source of its data.
        view: Part of its pictures that is looked at, and their tiles.
        config: Settings, before a search.
        search: Search to make first, if any.
        tags: Tags for users to find it by.
        terms: Priority, deadline, budget and approvals; no part of the key.
        floors: The least that a version has to reach before it may serve; no part of the key.
        thumbnails: Whether small pictures of mistakes are kept in the artifact; no part of the key.
        data_fingerprint: Fingerprint of the data when the task was planned.
        num_images: Training images.
    """

    name: str
    key: str
    source: DataSource
    view: View = DEFAULT_VIEW
    config: TuneConfig
    search: SearchConfig | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    floors: Floors = field(default_factory=Floors)
    thumbnails: bool = True
    data_fingerprint: str
    num_images: int


def task_key(
    data_fingerprint: str,
    config: TuneConfig,
    backbone_fingerprint: str,
    method_version: str = METHOD_VERSION,
    search: SearchConfig | None = None,
    view: View = DEFAULT_VIEW,
) -> str:
    """Hash of all inputs of a tuning, in 64 hex digits: the same key means the same prompt."""
    settings = config.to_dict()
    kinds = {config.kind, *(() if search is None else search.kind)}
    if kinds <= {"probe", "ship"}:
        # It changes nothing, and has its former default, so that keys stay what they were.
        settings["low_rank_rate_scale"] = 0.05
    values: dict[str, Any] = {
        "data": data_fingerprint,
        "config": settings,
        "backbone": backbone_fingerprint,
        "method": method_version,
    }
    if search is not None:
        values["search"] = search.to_dict()
    # Left out where it changes nothing: keys of earlier releases stay what they were.
    if not view.is_default:
        values["view"] = view.to_dict()
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """A task of a plan.

    Attributes:
        spec: The task.
        action: ``tune``, or ``reuse`` if its prompt is in the store already.
        num_classes: C.
        num_held_out: Images to measure the result on.
        num_repeated: Training images whose very bytes are those of another.
        num_repeated_held_out: The same of the images to measure on.
        passed_over: What lies beside its pictures and is left out, by kind.
        unmeasured: Its classes without a held-out image.
        evidence: On what its fingerprint rests: number of images by kind.
        shrinking: What is lost by shrinking its pictures to the backbone's input, if much is.
        version: Version that its artifact in the store has; None for ``tune``, and where it is not known.
        champion: Version of the task that serves, where ``version`` is known; None if none does.
        estimate_s: Seconds on one worker, 0 for ``reuse``; None if the speed is unknown.
        estimate_bytes: Storage of the prompt's tensors, 0 for ``reuse``; assumes that levels are two thirds
            of the layers.
    """

    spec: TaskSpec
    action: Literal["tune", "reuse"]
    num_classes: int
    num_held_out: int
    estimate_s: float | None
    estimate_bytes: int
    num_repeated: int = 0
    num_repeated_held_out: int = 0
    passed_over: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    evidence: Mapping[str, int] = field(default_factory=dict)
    shrinking: str | None = None
    version: int | None = None
    champion: int | None = None
