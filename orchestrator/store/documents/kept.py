"""``kept/<task>/<sha256 of the picture>.json``: what an endpoint answered for a picture that it kept."""

import json
import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from orchestrator.store.documents.document import Digest, Document, TaskName
from orchestrator.store.documents.writing import to_bytes

__all__ = ["MAX_KEPT_BYTES", "KeepReason", "KeptPicture"]

MAX_KEPT_BYTES = 64 << 10
# Classes whose probabilities are kept, the likeliest first.
MAX_PROBABILITIES = 20
_SCHEMA = 1
_ADVICE = "delete it; `ship review` goes on without it"
KeepReason = Literal["unsure", "far", "sample"]
_Label = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    task: TaskName
    picture: Digest
    num_bytes: Annotated[int, Field(ge=1)]
    version: Annotated[int, Field(ge=1)]
    digest: Digest
    rule: Digest | None
    decision: _Label
    because: Literal["far", "several", "confidence", "cost"] | None
    probabilities: Annotated[list[tuple[_Label, _Share]], Field(min_length=1, max_length=MAX_PROBABILITIES)]
    distance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None
    reason: KeepReason
    time_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class KeptPicture:
    """A picture that an endpoint kept, without its bytes.

    Attributes:
        task: Task that was asked.
        picture: sha256 of the file as it was received.
        num_bytes: Its size.
        version: Version that answered.
        digest: Digest of its artifact.
        rule: Digest of the decision rule; None for the artifact's own.
        decision: Label that was answered, or ``unsure``.
        because: Reason of an ``unsure``.
        probabilities: Labels and calibrated probabilities, the likeliest 20.
        distance: Distance from the training images, if it is known.
        reason: Why it was kept.
        time_s: When it was answered, seconds since the epoch.
    """

    task: str
    picture: str
    num_bytes: int
    version: int
    digest: str
    rule: str | None
    decision: str
    because: str | None
    probabilities: tuple[tuple[str, float], ...]
    distance: float | None
    reason: KeepReason
    time_s: float

    def to_json(self) -> bytes:
        """The object's content."""
        likeliest = [(label, min(1.0, p)) for label, p in self.probabilities[:MAX_PROBABILITIES]]
        distance = self.distance if self.distance is None or math.isfinite(self.distance) else None
        values = {**vars(self), "probabilities": likeliest, "distance": distance, "schema": _SCHEMA}
        return to_bytes(json.dumps(values, allow_nan=False))

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        found = dict(_Document.read(content, where, _ADVICE))
        del found["schema_"]
        return cls(**{**found, "probabilities": tuple(map(tuple, found["probabilities"]))})
