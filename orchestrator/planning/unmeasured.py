"""Warning of classes without a held-out image, for ``ship check`` and ``ship plan``."""

from collections.abc import Sequence

__all__ = ["describe_unmeasured"]

_NUM_NAMED = 3


def describe_unmeasured(classes: Sequence[str], num_classes: int) -> str:
    """What it means that classes have no held-out image.

    Args:
        classes: These classes, one at least.
        num_classes: Classes in all.
    """
    more = f" and {len(classes) - _NUM_NAMED} more" if len(classes) > _NUM_NAMED else ""
    named = ", ".join(map(repr, classes[:_NUM_NAMED])) + more
    if len(classes) == num_classes - 1:
        return f"no held-out image of {named}: by those of one class no version passes the gate; add some"
    return f"no held-out image of {named}: the share that is found is not measured; add some"
