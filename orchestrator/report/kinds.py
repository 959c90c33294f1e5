"""Kinds of verdicts in words, and the sentence that counts them."""

from collections import Counter
from collections.abc import Sequence

__all__ = ["KINDS", "tally"]

# From the worst to the best, as a report lists them.
KINDS = {
    "failed": "failed",
    "withheld": "withheld",
    "needs-backbone": "needs another backbone or resolution",
    "needs-data": "needs data",
    "unknown": "not known yet",
    "serves": "serves",
}


def tally(kinds: Sequence[str]) -> str:
    """How many tasks serve, and what the others are: ``5 of 8 serve; 3 need data``."""
    counts = Counter(kinds)
    said = [f"{counts['serves']} of {len(kinds)} serve"]
    for kind in ("needs-data", "needs-backbone", "withheld", "failed"):
        if number := counts[kind]:
            said.append(f"{number} {KINDS[kind].replace('needs', 'need', 1) if number > 1 else KINDS[kind]}")
    if counts["unknown"]:
        said.append(
            f"not known yet for {counts['unknown']}, whose records MLflow has not taken: see `ship ls`"
        )
    return "; ".join(said)
