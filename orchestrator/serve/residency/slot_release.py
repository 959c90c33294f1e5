"""Waits until nobody has a slot any more: its rows are free only then."""

import time
import weakref

from ship.runtime.slots import Slot

__all__ = ["wait_until_released"]

# A forward pass takes less; what still holds a slot then is stuck, and another one goes.
RELEASE_WAIT_S = 2.0
_RELEASE_LOOK_S = 0.002


def wait_until_released(slot: "weakref.ref[Slot]") -> None:
    """Wait until the requests that were answered from a slot are done with it, but not for ever."""
    deadline_s = time.monotonic() + RELEASE_WAIT_S
    while slot() is not None and time.monotonic() < deadline_s:
        time.sleep(_RELEASE_LOOK_S)
