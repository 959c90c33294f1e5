"""Limits that a task's data must keep, as the manifest sets them under ``checks``."""

from dataclasses import dataclass

from ship.settings.checks import check_settings, number, whole

__all__ = ["CheckGates"]

_share = number("from 0 to 1", lambda v: 0.0 <= v <= 1.0)
_CHECKS = {
    "corrupt": _share,
    "leaked": _share,
    "contradictory": _share,
    "duplicates": _share,
    "near_duplicates": _share,
    "dark": _share,
    "flat": _share,
    "blurred": _share,
    "odd_sized": _share,
    "imbalance": number("from 1", lambda v: v >= 1.0),
    "images_a_class": whole(0),
    "held_out": whole(0),
    "label_typos": whole(0),
}


@dataclass(frozen=True, kw_only=True)
class CheckGates:
    """Shares are of a task's images. What is over a limit fails ``ship check``; the rest is a warning.

    Attributes:
        corrupt: Share of images that cannot be read.
        leaked: Share of held-out images whose very pixels are also trained on.
        contradictory: Share of images whose very pixels stand under two classes.
        duplicates: Share of images whose very pixels came before, within a split.
        near_duplicates: Share of held-out images that are nearly one that is trained on.
        dark: Share that is almost black, or almost white.
        flat: Share that shows next to nothing: one even tone.
        blurred: Share with far less fine detail than the task's others.
        odd_sized: Share whose sides differ in proportion from the task's others.
        imbalance: Training images of the largest class for one of the smallest.
        images_a_class: Fewest training images of a class.
        held_out: Fewest images to measure the result on.
        label_typos: Pairs of classes that look like one, spelt in two ways.
    """

    corrupt: float = 0.0
    leaked: float = 0.0
    contradictory: float = 0.0
    duplicates: float = 1.0
    near_duplicates: float = 1.0
    dark: float = 1.0
    flat: float = 1.0
    blurred: float = 1.0
    odd_sized: float = 1.0
    imbalance: float = 1e9
    images_a_class: int = 1
    held_out: int = 1
    label_typos: int = 1_000_000

    def __post_init__(self) -> None:
        """Check every limit.

        Raises:
            ConfigError: Lists all that are out of range.
        """
        check_settings(self, _CHECKS)
