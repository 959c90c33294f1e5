"""Markers of a JPEG, which part its segments."""

import re

__all__ = ["EOI", "MARKER", "SOS", "WITHOUT_LENGTH"]

# As libjpeg looks for markers: what is between two of them is skipped.
MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# TEM, restarts and the start of an image; behind any other but the end of it, its segment's length follows.
WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])
EOI, SOS = 0xD9, 0xDA
