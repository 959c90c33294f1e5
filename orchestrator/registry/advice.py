"""Verdict on a version as it is kept in a tag of it: made by ``advising``, read by every listing."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

__all__ = ["Advice", "Gate", "Kind"]

# What a version was withheld by. ``unmeasured``: numbers lack, its own or the champion's; ``guessing``: it is
# not told from that; ``floors``: it misses some; ``probe``, ``champion``, ``best``: it is worse than the
# linear probe, than today's champion, or than an earlier one on the same images; ``classes``: it lost some of
# the champion's; ``promise``: it cannot keep to the rule that was set for the champion; ``older``: it was
# published before the champion.
Gate = Literal["unmeasured", "guessing", "floors", "probe", "classes", "champion", "best", "promise", "older"]
Kind = Literal["serves", "needs-data", "needs-backbone", "withheld"]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Verdict on a version, and what to do.

    Attributes:
        kind: ``serves``: the gate promoted it. ``needs-data``, ``needs-backbone``: more images, or another
            backbone or image size, promise what the gate asks for. ``withheld``: neither would.
        gate: What it was withheld by, see ``Gate``; None if it was not.
        text: What to do, as a sentence without a full stop; empty if there is nothing to do. Of a probe
            that serves in place of a tuned prompt, why.
        num_images: Images to add (``needs-data``).
        split: Where to add them.
        of_class: Class that needs them most.
    """

    kind: Kind
    gate: Gate | None = None
    text: str = ""
    num_images: int | None = None
    split: Literal["training", "held-out"] | None = None
    of_class: str | None = None

    def to_json(self) -> str:
        """As a tag of a version."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """Read a tag, which a person may have edited; None if it is no advice."""
        try:
            values = json.loads(text or "")
            advice = cls(**values)
        except (ValueError, TypeError, RecursionError):
            return None
        return advice if advice.kind in ("serves", "needs-data", "needs-backbone", "withheld") else None
