"""Answers of an endpoint, as a client has them."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Prediction", "ServedTask"]


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
