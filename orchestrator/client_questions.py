"""What a client asks at a time, as a form, and what it hears about attention. Nothing is sent here."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Attention", "FormPart", "Question", "batch_form", "content_of"]

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
    image: bytes | str | os.PathLike[str]
    version: int | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Where a task's prompt makes the network look, see ``ship.explain``.

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


def content_of(image: bytes | str | os.PathLike[str]) -> bytes:
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
