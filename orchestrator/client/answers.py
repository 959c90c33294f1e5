"""Answers of an endpoint, as a client has them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import httpx

__all__ = ["Prediction", "ServedTask", "mapping", "read_page", "read_prediction", "read_task"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A task's answer about an image.

    Attributes:
        task: Name of the task.
        version: Version of the prompt that answered.
        digest: Digest of the prompt that answered.
        label: The likeliest class.
        probabilities: Calibrated probability by label, the likeliest first; they sum to 1.
        backbone: Fingerprint of the backbone.
        decision: Label that the task's decision rule answers, or ``unsure``.
        decision_because: Reason of an ``unsure``: ``far`` from all training images, ``several`` classes with
            a promised recall are possible, the ``confidence`` is too low, or an error would ``cost`` more
            than a look. None of a label.
        rule: Start of the decision rule's digest; None for the rule that came with the version.
    """

    task: str
    version: int
    digest: str
    label: str
    probabilities: Mapping[str, float]
    backbone: str
    decision: str
    decision_because: str | None = None
    rule: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServedTask:
    """State of a task at the endpoint.

    Attributes:
        task: Its name.
        version: Served version; None if none is.
        digest: Digest of the served prompt; None if none is.
        wanted_version: Version that the registry names; another one while it loads, or if it was refused.
        wanted_digest: Digest that the registry names.
        problem: Reason why the wanted version or its rule is not served, if loading it failed.
        labels: Class names; empty in a list of all tasks.
        rule: Digest of the decision rule that is served; None for the rule that came with the version.
        wanted_rule: Digest of the decision rule that the task ought to have.
        canary: ``version`` and ``share`` of the canary; None if there is none.
        shadow_version: Version of the shadow; None if there is none, or in the answer about one task.
        backbone: Fingerprint of the task's backbone; None of an older endpoint.
    """

    task: str
    version: int | None
    digest: str | None
    wanted_version: int
    wanted_digest: str
    problem: str | None
    labels: tuple[str, ...] = ()
    rule: str | None = None
    wanted_rule: str | None = None
    canary: Mapping[str, Any] | None = None
    shadow_version: int | None = None
    backbone: str | None = None


def read_prediction(body: Mapping[str, Any], reply: httpx.Response) -> Prediction:
    """An answer of a reply's body; raises what reading JSON of another form raises."""
    shares = mapping(body["probabilities"])
    return Prediction(
        **{name: body[name] for name in ("task", "version", "digest", "label")},
        probabilities={label: float(share) for label, share in shares.items()},
        # Of a batch the header names all of an endpoint's.
        backbone=str(body.get("backbone") or reply.headers["Ship-Backbone"]),
        # An older endpoint decides for the likeliest label, and says no more.
        decision=str(body.get("decision", body["label"])),
        decision_because=_text_or_none(body.get("decision_because")),
        rule=_text_or_none(body.get("rule")),
    )


def read_task(value: Any) -> ServedTask:
    """A task of a reply's body; see ``read_prediction``."""
    # A newer endpoint may say more.
    said = mapping(value)
    known = {field.name: said[field.name] for field in fields(ServedTask) if field.name in said}
    # Of a list it is a fingerprint, of one task a description.
    backbone = known.get("backbone")
    fingerprint = backbone.get("fingerprint") if isinstance(backbone, dict) else backbone
    return ServedTask(**{**known, "labels": tuple(said.get("labels", ())), "backbone": fingerprint})


def read_page(body: Mapping[str, Any]) -> tuple[list[ServedTask], str | None]:
    """Tasks of a page, and the cursor of the next one; see ``read_prediction``."""
    # An older endpoint gives one page of them all.
    cursor = body.get("next_cursor")
    return [read_task(task) for task in body["tasks"]], None if cursor is None else str(cursor)


def mapping(value: Any) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, dict):
        raise TypeError(f"expected an object of JSON, found {type(value).__name__}")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
