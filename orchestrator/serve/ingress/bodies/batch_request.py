"""Parser of batch requests: images by name, and the task to ask about each.

Either a form with a part ``request`` that lists them, or header Ship-Task and a form of images alone. An
error of the request as a whole is refused here; an error of one item is that item's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from orchestrator.serve.ingress.bodies.form import FORM_TYPE, Part, form_problem, read_form
from orchestrator.serve.ingress.bodies.json_document import check_keys, json_problem, parse_json
from orchestrator.serve.ingress.headers import (
    KEY_HEADER,
    MAX_VERSION,
    TASK_HEADER,
    VERSION_HEADER,
    check_key,
    media_type,
    read_wanted,
)
from orchestrator.serve.ingress.problems import Problem
from orchestrator.serve.options import Limits

__all__ = ["REQUEST_PART", "BatchItem", "BatchRequest", "read_batch"]

REQUEST_PART = "request"
_EXPECTED = (
    f"{FORM_TYPE} with a part {REQUEST_PART!r} of JSON and the images that it names, or images alone beside "
    f"header {TASK_HEADER}"
)
# {"items": [{...}]}
_DEPTH = 3
_VALUES_OF_ITEM = 8
_BYTES_OF_ITEM = 1024
_ITEM_KEYS = ("image", "task", "version", "key")


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One item of a batch: a task, and the image to ask it about.

    Attributes:
        image: Name of the form's part with the image.
        task: Task as sent, which may be an invalid name.
        version: Version to ask; None for the one that is served.
        key: See ``engine_api.Ask``.
    """

    image: str
    task: str
    version: int | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """Parsed batch request.

    Attributes:
        items: Items in the order of the replies.
        images: Content of each image file, by name; an item refers to each.
    """

    items: tuple[BatchItem, ...]
    images: Mapping[str, bytes]


def read_batch(headers: Headers, body: bytes, limits: Limits) -> BatchRequest:
    """Parse a batch request.

    Raises:
        Problem: 400, the form or its JSON is invalid, or images and items do not match; 413, too many images
            or items; 415, the body is not a form.
    """
    kind = media_type(headers)
    if kind != FORM_TYPE:
        raise Problem(
            "content-type-unsupported",
            f"Content-Type {kind[:80]!r}: expected {_EXPECTED}",
        )
    parts = read_form(
        headers["content-type"],
        body,
        # One more than allowed, so that a second part `request` is reported as such.
        max_parts=limits.max_batch_images + 2,
        expected=_EXPECTED,
        too_many=_too_many_images(limits),
    )
    requests = [part for part in parts if part.name == REQUEST_PART]
    images = _images(parts, limits)
    if not requests:
        return BatchRequest(items=_one_item_an_image(headers, images), images=images)
    if len(requests) > 1:
        raise form_problem(_EXPECTED, f"found {len(requests)} parts {REQUEST_PART!r}")
    # Each item has its own; the header would be ignored.
    named = [name for name in (TASK_HEADER, VERSION_HEADER, KEY_HEADER) if headers.getlist(name)]
    if named:
        raise form_problem(_EXPECTED, f"found both, part {REQUEST_PART!r} and header {', '.join(named)}")
    items = _read_items(bytes(requests[0].content), limits)
    _check_names(items, images)
    return BatchRequest(items=items, images=images)


def _images(parts: Sequence[Part], limits: Limits) -> dict[str, bytes]:
    found = [part for part in parts if part.name != REQUEST_PART]
    if len(found) > limits.max_batch_images:
        raise _too_many_images(limits)
    twice = [name for name, count in Counter(part.name for part in found).items() if count > 1]
    if twice:
        raise form_problem(_EXPECTED, f"found more than one part {_some(twice)}; give each image its name")
    return {part.name: bytes(part.content) for part in found}


def _too_many_images(limits: Limits) -> Problem:
    found = f"expected at most {limits.max_batch_images} images; send more requests"
    return Problem("batch-too-large", found)


def _one_item_an_image(headers: Headers, images: Mapping[str, bytes]) -> tuple[BatchItem, ...]:
    if not images:
        raise form_problem(_EXPECTED, "found no parts")
    wanted = read_wanted(headers)
    return tuple(
        BatchItem(image=name, task=wanted.task, version=wanted.version, key=wanted.key) for name in images
    )


def _read_items(content: bytes, limits: Limits) -> tuple[BatchItem, ...]:
    most = limits.max_batch_items
    if len(content) > (most + 1) * _BYTES_OF_ITEM:
        raise json_problem(f"{len(content)} bytes, more than {most} items need")
    # An item is an object, and has up to seven strings, keys included: as many as values are allowed.
    most_values = 2 * (most + 1) * _VALUES_OF_ITEM
    document = parse_json(content, max_depth=_DEPTH, max_values=most_values, max_large=most_values)
    rows = check_keys(document, REQUEST_PART, needed=("items",), known=("items",))["items"]
    if not isinstance(rows, list) or not rows:
        raise json_problem(f"{REQUEST_PART}.items: expected an array of at least one item")
    if len(rows) > most:
        raise Problem(
            "batch-too-large",
            f"{len(rows)} items: expected at most {most}; send more requests",
        )
    return tuple(_read_item(row, f"{REQUEST_PART}.items[{number}]") for number, row in enumerate(rows))


def _read_item(row: Any, place: str) -> BatchItem:
    item = check_keys(row, place, needed=("image", "task"), known=_ITEM_KEYS)
    for name in ("image", "task", "key"):
        if not isinstance(item.get(name, ""), str):
            raise json_problem(f"{place}.{name}: expected a string")
    version = item.get("version")
    if "version" in item and not (type(version) is int and 0 <= version <= MAX_VERSION):
        raise json_problem(f"{place}.version: expected a whole number such as 3")
    if "key" in item:
        check_key(item["key"], f"{place}.key")
    return BatchItem(**item)


def _check_names(items: Sequence[BatchItem], images: Mapping[str, bytes]) -> None:
    asked = {item.image for item in items}
    missing, idle = sorted(asked - images.keys()), sorted(images.keys() - asked)
    if missing:
        raise form_problem(_EXPECTED, f"no part is named {_some(missing)}, which an item asks about")
    if idle:
        raise form_problem(_EXPECTED, f"no item asks about part {_some(idle)}")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
