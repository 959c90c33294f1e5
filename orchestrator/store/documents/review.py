"""``reviews/<task>/<sha256 of the picture>.json``: what persons say that a kept picture shows."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from orchestrator.store.documents.document import Digest, Document, TaskName
from orchestrator.store.documents.writing import to_bytes

__all__ = ["MAX_REVIEW_BYTES", "Opinion", "Review", "ReviewState"]

MAX_REVIEW_BYTES = 64 << 10
MAX_OPINIONS = 50
_SCHEMA = 1
_ADVICE = "delete it, and label the picture again"
_Label = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ReviewState = Literal["open", "second", "settled", "left out"]


class _Opinion(Document):
    label: _Label | None
    by: _Name
    host: Annotated[str, StringConstraints(max_length=2000)]
    time_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Document(Document):
    schema_: Literal[1] = Field(alias="schema")
    task: TaskName
    picture: Digest
    answered: _Label | None
    opinions: Annotated[list[_Opinion], Field(max_length=MAX_OPINIONS)]


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What one person says.

    Attributes:
        label: Label of the picture; None to leave it out: it shows no part, or none that can be told.
        by: Name of the person.
        host: Name of the machine.
        time_s: Seconds since the epoch.
    """

    label: str | None
    by: str
    host: str
    time_s: float


@dataclass(frozen=True, kw_only=True)
class Review:
    """The opinions on one picture.

    Attributes:
        task: Task.
        picture: sha256 of the file.
        answered: Label that the endpoint answered; None where it was unsure.
        opinions: One of each person, the latest last.
    """

    task: str
    picture: str
    answered: str | None
    opinions: tuple[Opinion, ...] = ()

    @property
    def state(self) -> ReviewState:
        """``open``, ``second`` (a second person has to look), ``settled``, or ``left out``.

        One person is enough where the endpoint was unsure, or said the same. Against what it answered, and
        where persons differ, two have to say the same, and more than say anything else.
        """
        if not self.opinions:
            return "open"
        (label, num), *others = Counter(one.label for one in self.opinions).most_common()
        if others and others[0][1] == num:
            return "second"
        if label is None:
            return "left out"
        is_enough = num > 1 or (not others and self.answered in (None, label))
        return "settled" if is_enough else "second"

    @property
    def label(self) -> str | None:
        """The label that is settled."""
        if self.state != "settled":
            return None
        return Counter(one.label for one in self.opinions).most_common(1)[0][0]

    def of(self, by: str) -> Opinion | None:
        """The opinion of a person."""
        return next((one for one in self.opinions if _is_same(one.by, by)), None)

    def with_opinion(self, opinion: Opinion) -> Self:
        """With another opinion, in place of the one that the person had before."""
        return replace(self, opinions=(*self.without(opinion.by).opinions, opinion))

    def without(self, by: str) -> Self:
        """Without the opinion of a person."""
        return replace(self, opinions=tuple(one for one in self.opinions if not _is_same(one.by, by)))

    def describe(self) -> dict[str, Any]:
        """State, label and opinions as plain values."""
        return {
            "state": self.state,
            "label": self.label,
            "opinions": [{"label": one.label, "by": one.by, "time_s": one.time_s} for one in self.opinions],
        }

    def to_json(self) -> bytes:
        """The object's content."""
        values = {**vars(self), "opinions": [vars(one) for one in self.opinions], "schema": _SCHEMA}
        return to_bytes(json.dumps(values, allow_nan=False))

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Self:
        """Read the object; anything unexpected is refused.

        Raises:
            StoreError: Lists all problems.
        """
        found = _Document.read(content, where, _ADVICE)
        opinions = tuple(Opinion(**dict(one)) for one in found.opinions)
        return cls(task=found.task, picture=found.picture, answered=found.answered, opinions=opinions)


def _is_same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
