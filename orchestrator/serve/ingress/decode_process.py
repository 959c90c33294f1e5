"""A process that decodes image files within a budget of CPU time, and its side of the connection.

Loads neither torch nor Ray nor the HTTP framework: it starts in a third of a second and takes 30 MB. The
kernel ends it when a picture's budget is spent, in the middle of whatever a decoder does; it ends itself when
the connection closes, and on Linux when its parent dies.
"""

import ctypes
import json
import resource
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

from ship.errors import ConfigError, ImageError
from ship.images.decoding import decode_pixels, read_size
from ship.settings.view import View

__all__ = ["HEADER", "main", "message_bytes", "pack", "unpack"]

# Of a message: bytes of its JSON object, and of what follows it.
HEADER = struct.Struct("!II")
_SET_DEATH_SIGNAL = 1
# Of Python's own, and of the file. Beside it: the most that converting a mode takes, see ``decoding``.
_SPARE_BYTES = 512 << 20
_BYTES_A_PIXEL = 32


def pack(facts: Mapping[str, Any], num_bytes: int) -> bytes:
    """The start of a message, a JSON object, which ``num_bytes`` follow."""
    head = json.dumps(facts).encode()
    return HEADER.pack(len(head), num_bytes) + head


def message_bytes(begun: bytes | bytearray) -> int:
    """Bytes of a message of which these have come; those of its header while that has not come."""
    return HEADER.size + sum(HEADER.unpack_from(begun)) if len(begun) >= HEADER.size else HEADER.size


def unpack(message: bytes | bytearray) -> tuple[dict[str, Any], memoryview]:
    """The JSON object and the bytes of a whole message."""
    num_head, _ = HEADER.unpack_from(message)
    facts: dict[str, Any] = json.loads(message[HEADER.size : HEADER.size + num_head])
    return facts, memoryview(message)[HEADER.size + num_head :]


def _receive(connection: socket.socket) -> tuple[dict[str, Any], bytearray]:
    """Receive a message.

    Raises:
        EOFError: The connection has closed.
        OSError: It is broken.
    """
    num_head, num_payload = HEADER.unpack(_read(connection, HEADER.size))
    facts: dict[str, Any] = json.loads(_read(connection, num_head))
    return facts, _read(connection, num_payload)


def main(fileno: int, max_pixels: int) -> None:
    """Answer requests until the connection closes."""
    _end_with_parent()
    _limit_memory(max_pixels)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=fileno) as connection:
        while True:
            try:
                request, content = _receive(connection)
            except (EOFError, OSError):
                return
            facts, pixels = _answer(request, bytes(content), max_pixels)
            connection.sendall(pack(facts, len(pixels)) + pixels)


def _answer(request: dict[str, Any], content: bytes, max_pixels: int) -> tuple[dict[str, Any], memoryview]:
    base_s, megapixel_s = request["cpu_s"], request["cpu_s_per_megapixel"]
    largest = request["largest"]

    def grant(num_pixels: int) -> None:
        if largest is not None and num_pixels > largest:
            raise _LargeError
        # The default action of its signal ends the process; nothing in Python has to run for that.
        signal.setitimer(signal.ITIMER_PROF, base_s + megapixel_s * min(num_pixels, max_pixels) / 1e6)

    signal.setitimer(signal.ITIMER_PROF, base_s)
    try:
        if request["view"] is None:
            signal.setitimer(signal.ITIMER_PROF, base_s + megapixel_s * max_pixels / 1e6)
            return {"size": read_size(content)}, memoryview(b"")
        pixels = decode_pixels(
            content,
            size=tuple(request["size"]),
            interpolation=request["interpolation"],
            max_pixels=max_pixels,
            formats=request["formats"],
            view=View.from_dict(request["view"]),
            on_open=grant,
        )
    except _LargeError:
        return {"large": True}, memoryview(b"")
    except ImageError as error:
        return {"problems": error.problems, "kind": error.kind}, memoryview(b"")
    except ConfigError as error:
        return {"problems": error.problems, "kind": None}, memoryview(b"")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    return {"shape": pixels.shape}, pixels.data.cast("B")


class _LargeError(BaseException):
    """A picture for the other lane; no ``Exception``, which decoding takes for a broken file."""


def _read(connection: socket.socket, num_bytes: int) -> bytearray:
    content = bytearray(num_bytes)
    rest = memoryview(content)
    while rest:
        num_read = connection.recv_into(rest)
        if not num_read:
            raise EOFError
        rest = rest[num_read:]
    return content


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def _limit_memory(max_pixels: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            now_bytes = int(file.read().split()[0]) * resource.getpagesize()
        most = now_bytes + _SPARE_BYTES + _BYTES_A_PIXEL * max_pixels
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
