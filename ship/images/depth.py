"""Bit depth of deep samples: how many bits of a 16-bit file hold the picture, and their scale to 8 bits.

A camera of 12 bits that writes 16-bit files leaves the upper bits empty. The depth is stated by the task or
by the file's tags, never guessed from a picture of a task: else a dark picture would be read otherwise than
its neighbours. The samples only decide whether the stated depth is refused.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ship.errors import ImageError
from ship.settings.view import DEPTHS, Bits

__all__ = ["Depth", "to_8_bits"]

_Samples = NDArray[Any]
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Depth:
    """What is known about the depth of a picture's samples.

    Attributes:
        stated: A task's setting ``bits``; None for a picture alone, without a task: it is read by the least
            depth that holds its samples.
        container: Bits of a sample in the file; of 32 the lower 16 are used.
        tagged: Depth that the file's tags name; None if they name none.
        may_be_shifted: Whether samples of the tagged depth may be scaled to the container, as PNG wants them.
    """

    stated: Bits | None
    container: int = 16
    tagged: int | None = None
    may_be_shifted: bool = False

    @property
    def full(self) -> int:
        """Bits that fill a sample of the file."""
        return min(16, self.container)

    @property
    def is_full(self) -> bool:
        """Whether samples are known to fill the file's range."""
        return (self.tagged if self.stated in (None, "auto") else self.stated) == self.full

    @property
    def is_unknown(self) -> bool:
        """Whether nothing names the depth."""
        return self.stated in (None, "auto") and self.tagged is None

    def of(self, samples: _Samples) -> int:
        """Bits of the value that is white.

        Args:
            samples: Whole numbers, of any shape.

        Raises:
            ImageError: A sample is above the stated depth, or nothing names the depth of dark samples.
        """
        top = int(samples.max())
        if isinstance(self.stated, int):
            bits = min(self.stated, self.full)
            if top >> bits:
                raise _refusal(
                    f"a sample of {top}, above the {2**bits - 1} of {bits} bits, which the task states"
                )
            return bits
        if self.tagged is not None:
            return self._of_tagged(samples, top, self.tagged)
        if self.stated is None and self.container == 16:
            return next(bits for bits in DEPTHS if not top >> bits)
        if self.stated is not None and 0 < top < 1 << (self.full - 2):
            raise _refusal(f"samples up to {top} of 65535, and no tag that says how many bits are used")
        return self.full

    def _of_tagged(self, samples: _Samples, top: int, tagged: int) -> int:
        if not top >> tagged:
            spare = (1 << max(0, self.full - tagged)) - 1
            if self.may_be_shifted and spare and top and not (samples & spare).any():
                raise _refusal(f"samples that are {tagged} bits by its tag, or those scaled to 16")
            return tagged
        if self.may_be_shifted:
            return self.full
        raise _refusal(f"a sample of {top}, above the {2**tagged - 1} of {tagged} bits, which its tags name")


def to_8_bits(samples: _Samples, bits: int) -> NDArray[np.uint8]:
    """Samples of 0 to ``2**bits - 1``, scaled linearly and rounded; by few rows, as floats are large."""
    scaled = np.empty(samples.shape, np.uint8)
    for start in range(0, len(samples), _ROWS_AT_ONCE):
        rows = samples[start : start + _ROWS_AT_ONCE]
        scaled[start : start + _ROWS_AT_ONCE] = (rows * (255.0 / (2**bits - 1)) + 0.5).astype(np.uint8)
    return scaled


def _refusal(found: str) -> ImageError:
    return ImageError(
        f"found {found}; set `bits` in the task's view to the camera's depth (8, 10, 12, 14, or 16 for the "
        "full range)",
        "unsupported",
    )
