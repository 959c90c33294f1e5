"""Questions of a client: their checks and their form; and attention maps as answers. Nothing is sent here."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from ship.redaction import Url

__all__ = [
    "Attention",
    "FormPart",
    "ImageSource",
    "Question",
    "batch_form",
    "check_key",
    "check_url",
    "content_of",
    "read_parts",
]

_MAX_PORT = 65535
# A header's value neither begins nor ends with a space.
_KEY = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")

# The content of an image file, or its path.
ImageSource = bytes | str | os.PathLike[str]
# As httpx takes a part: name, (file name or None for a field, content, media type).
FormPart = tuple[str, tuple[str | None, bytes, str]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One task about one image.

    Attributes:
        task: Its name.
        image: The content of an image file, or its path. One that several questions are about is sent once.
        version: Version that must answer; None for the served one.
        key: Questions with one key are answered by one of two versions while a canary runs.
    """

    task: str
    image: ImageSource
    version: int | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Attention maps of an image, with a task's prompt and without; see ``ship.runtime.explain``.

    Attributes:
        task: Name of the task.
        version: Version of the prompt.
        digest: Digest of the prompt.
        attention: Share of each patch, row by row, with the prompt; they sum to 1.
        bare_attention: The same on the bare backbone.
        entropy: Entropy of ``attention`` over its maximum: 0 on one patch, 1 on all alike.
        bare_entropy: Entropy of ``bare_attention`` over its maximum.
        distance: Share of attention that the prompt moves.
    """

    task: str
    version: int
    digest: str
    attention: tuple[tuple[float, ...], ...]
    bare_attention: tuple[tuple[float, ...], ...]
    entropy: float
    bare_entropy: float
    distance: float

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Read the body of a reply."""
        plain = ("task", "version", "digest", "entropy", "bare_entropy", "distance")
        maps: dict[str, Any] = {
            name: tuple(map(tuple, body[name])) for name in ("attention", "bare_attention")
        }
        return cls(**{name: body[name] for name in plain}, **maps)


def check_url(url: str, example: str) -> str:
    """Return ``url`` unchanged if it can be an endpoint's.

    Raises:
        ValueError: It is no URL, not of HTTP, or names no host.
    """
    try:
        parsed = httpx.URL(url)
        host, port = parsed.host, parsed.port or 0
        # As the connection will look it up.
        parsed.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        said = Url(url).redact(str(error))[:200]
        raise ValueError(f"{str(Url(url))[:200]!r}: expected a URL such as {example} ({said})") from error
    if parsed.scheme not in ("http", "https") or not host or port > _MAX_PORT:
        raise ValueError(f"{str(Url(url))[:200]!r}: expected a URL such as {example}")
    return url


def check_key(key: str) -> str:
    """Return ``key`` unchanged if it can be a header.

    Raises:
        ValueError: It cannot.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"key {key[:40]!r}: expected 1 to 128 printable characters of ASCII, with no space at either end"
        )
    return key


def content_of(image: ImageSource) -> bytes:
    """The content of an image file.

    Raises:
        OSError: It cannot be read.
    """
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def batch_form(questions: Sequence[Question]) -> list[FormPart]:
    """Multipart form of a batch: the questions, then each image once.

    Raises:
        OSError: An image cannot be read.
    """
    names: dict[bytes, str] = {}
    items: list[dict[str, Any]] = []
    for question in questions:
        name = names.setdefault(content_of(question.image), f"image-{len(names)}")
        item = {"image": name, "task": question.task, "version": question.version, "key": question.key}
        items.append({key: value for key, value in item.items() if value is not None})
    document = json.dumps({"items": items}).encode()
    images: list[FormPart] = [
        (name, (name, content, "application/octet-stream")) for content, name in names.items()
    ]
    return [("request", (None, document, "application/json")), *images]


def read_parts(body: bytes, types: Sequence[str]) -> list[bytes]:
    """The contents of a multipart reply whose parts have those media types, in that order.

    Raises:
        ValueError: It is none.
    """
    # The first line is the boundary, which occurs in no part.
    boundary = body.partition(b"\r\n")[0]
    if not boundary.startswith(b"--"):
        raise ValueError("expected a boundary")
    *parts, end = (b"\r\n" + body).split(b"\r\n" + boundary)[1:]
    heads = [f"\r\nContent-Type: {one}\r\n\r\n".encode() for one in types]
    if end != b"--\r\n" or len(parts) != len(heads):
        raise ValueError(f"expected {len(heads)} parts, found {len(parts)}")
    for part, head in zip(parts, heads, strict=True):
        if not part.startswith(head):
            raise ValueError("expected parts of other types")
    return [part.removeprefix(head) for part, head in zip(parts, heads, strict=True)]
