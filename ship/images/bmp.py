"""Palettes of BMPs as their decoder reads them right."""

import struct

__all__ = ["with_whole_palette"]

_FILE_HEADER, _NUM_COLOURS = 14, 256


def with_whole_palette(content: bytes) -> bytes:
    """The file with 256 colours, if Pillow may take its palette for a scale of grey with other bits a pixel.

    Raises:
        struct.error: The file ends early.
    """
    offset, header_bytes = struct.unpack_from("<II", content, 10)
    if header_bytes < 40:
        return content
    (bits,) = struct.unpack_from("<H", content, 28)
    (num_colours,) = struct.unpack_from("<I", content, 46)
    if bits != 4 and not (bits == 8 and num_colours == 2):
        return content
    start = _FILE_HEADER + header_bytes
    end = min(start + 4 * (num_colours or 1 << bits), offset)
    if not start < end <= start + 4 * _NUM_COLOURS:
        return content
    head = bytearray(content[:start])
    struct.pack_into("<I", head, 10, start + 4 * _NUM_COLOURS)
    struct.pack_into("<I", head, 46, _NUM_COLOURS)
    return b"".join((head, content[start:end].ljust(4 * _NUM_COLOURS, b"\0"), memoryview(content)[offset:]))
