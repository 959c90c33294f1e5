"""What lies beside the images of a data set and is left out: counted, and named once."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PassedOver", "merge_passed_over", "pass_over"]

_NUM_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class PassedOver:
    """Files or folders of one kind that were left out.

    Attributes:
        kind: What they are, in words that follow a count, such as ``hidden files``.
        count: Their number.
        examples: Paths of the first few.
    """

    kind: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """A phrase such as ``3 hidden files (.a.png, .b.png, ...)``."""
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count} {self.kind} ({', '.join(self.examples)}{more})"


def pass_over(kind: str, paths: Iterable[str]) -> list[PassedOver]:
    """One entry for all paths of a kind; none if there are no paths."""
    found = sorted(paths)
    return [PassedOver(kind=kind, count=len(found), examples=tuple(found[:_NUM_EXAMPLES]))] if found else []


def merge_passed_over(entries: Iterable[PassedOver]) -> tuple[PassedOver, ...]:
    """The entries with one for each kind."""
    merged: dict[str, PassedOver] = {}
    for entry in entries:
        before = merged.get(entry.kind)
        if before is not None:
            entry = PassedOver(
                kind=entry.kind,
                count=before.count + entry.count,
                examples=(*before.examples, *entry.examples)[:_NUM_EXAMPLES],
            )
        merged[entry.kind] = entry
    return tuple(merged[kind] for kind in sorted(merged))
