"""A hostile request, and what such requests are made of."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.unit.orchestrator.serve.caller import PNG

Headers = list[tuple[bytes, bytes]]
TO_BOLTS = [(b"ship-task", b"bolts"), (b"content-type", b"application/octet-stream")]
FORM = b"multipart/form-data; boundary=b"
TO_FORM = [(b"ship-task", b"bolts"), (b"content-type", FORM)]
JSON = [(b"content-type", b"application/json")]
INFER = "/v2/models/bolts/infer"
BATCH = "/v1/predict:batch"


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One request, and which refusals of it are right."""

    name: str
    statuses: tuple[int, ...]
    path: str = "/v1/predict"
    method: str = "POST"
    headers: Sequence[tuple[bytes, bytes]] = ()
    chunks: Sequence[bytes] = field(default=(b"",))
    hangs_up: bool = False


def part(disposition: bytes, content: bytes, more: bytes = b"") -> bytes:
    return (
        b"--b\r\nContent-Disposition: form-data; "
        + disposition
        + b"\r\n"
        + more
        + b"\r\n"
        + content
        + b"\r\n"
    )


IMAGE = part(b'name="image"; filename="x.png"', PNG)
END = b"--b--\r\n"
MANY = b"".join(part(b'name="p%d"' % number, b"") for number in range(3000))


def tensor(data: Any, shape: Any = (1,), datatype: str = "BYTES", **more: Any) -> bytes:
    inputs = [{"name": "image", "shape": list(shape), "datatype": datatype, "data": data}]
    return json.dumps({"inputs": inputs, **more}).encode()
