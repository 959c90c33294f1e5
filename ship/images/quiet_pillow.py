"""Pillow without its warnings and its own limit on pixels, while anything is decoded."""

import threading
import warnings

from PIL import Image

__all__ = ["QUIET_PILLOW"]


class _QuietPillow:
    """Keeps Pillow's warnings in, which say nothing that our errors do not, and its own limit on pixels out.

    Both are shared by all threads, and a ``catch_warnings`` in each of them would restore one another's:
    the first decoder in sets them, the last one out takes them away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._filters = warnings.catch_warnings()
        self._max_pixels = Image.MAX_IMAGE_PIXELS

    def __enter__(self) -> None:
        with self._lock:
            self._num_users += 1
            if self._num_users == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._max_pixels, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                Image.MAX_IMAGE_PIXELS = self._max_pixels
                self._filters.__exit__(None, None, None)


QUIET_PILLOW = _QuietPillow()
