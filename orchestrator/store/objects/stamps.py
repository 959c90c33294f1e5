"""Stamps of files: their identity, size and times, by which an unchanged file is told without reading it.

Times have a grain, so a file that is written twice within it may keep its stamp. A stamp is trusted only if
the content was read a while after the stamp was first seen: whatever is written after that reading is stamped
at a later time. That while is measured on a monotonic clock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["Stamp", "Stamps"]

# Device, inode, size, times of the last change of content and of status.
Stamp = tuple[int, int, int, int, int]
# Above the grain of any file system's times, FAT's two seconds included.
_GRAIN_S = 3.0


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The stamp of a file, when it was first seen, and the file's etag if it can be trusted."""

    stamp: Stamp
    first_s: float
    etag: str | None = None


class Stamps:
    """Stamps of the files that were read, by key.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def has(self, key: str, stamp: Stamp, etag: str) -> bool:
        """Whether the file with that stamp is known to have that etag."""
        seen = self._seen.get(key)
        return seen is not None and (seen.stamp, seen.etag) == (stamp, etag)

    def note(self, key: str, stamp: Stamp, etag: str) -> None:
        """A file was read, and had the stamp before and after."""
        now_s = self._clock()
        seen = self._seen.get(key)
        if seen is None or seen.stamp != stamp:
            seen = _Seen(stamp=stamp, first_s=now_s)
        self._seen[key] = replace(seen, etag=etag if now_s - seen.first_s >= _GRAIN_S else None)
