"""What a client asks, whom and how, and what it hears about attention. Nothing is sent here."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

__all__ = [
    "Attention",
    "FormPart",
    "ImageSource",
    "Question",
    "batch_form",
    "check_key",
    "check_url",
    "content_of",
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
        version: That must answer; None for whichever is served.
        key: Questions with one key are answered by one of two versions while a canary runs.
    """

    task: str
    image: ImageSource
    version: int | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Where a task's prompt makes the network look, see ``ship.runtime.explain``.

    Attributes:
        task: That was asked.
        version: Of the prompt.
        digest: Of the prompt.
        attention: Of each patch, row by row, its share with the prompt; all together 1.
        bare_attention: The same on the bare backbone.
        entropy: Of the first: 0 on one patch, 1 on all alike.
        bare_entropy: Of the second.
        distance: Share of attention that goes elsewhere with the prompt.
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
        """As the endpoint says it."""
        plain = ("task", "version", "digest", "entropy", "bare_entropy", "distance")
        maps: dict[str, Any] = {
            name: tuple(map(tuple, body[name])) for name in ("attention", "bare_attention")
        }
        return cls(**{name: body[name] for name in plain}, **maps)


def check_url(url: str, example: str) -> str:
    """Return ``url`` unchanged if it can be an endpoint's.

    Raises:
        ValueError: It is none, or not of HTTP, or names no host; says so, with an example.
    """
    try:
        parsed = httpx.URL(url)
        host, port = parsed.host, parsed.port or 0
        # As the connection will look it up.
        parsed.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{url[:200]!r}: expected a URL such as {example} ({str(error)[:200]})") from error
    if parsed.scheme not in ("http", "https") or not host or port > _MAX_PORT:
        raise ValueError(f"{url[:200]!r}: expected a URL such as {example}")
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
    """The form that asks them: what is asked first, then each image once.

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
