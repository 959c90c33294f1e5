"""Reader of a request's image: a raw body or a form, within limits, not decoded yet."""

from collections.abc import AsyncIterator

from starlette.datastructures import Headers

from orchestrator.serve.ingress.bodies.form import FORM_TYPE, form_problem, read_form
from orchestrator.serve.ingress.headers import RAW_TYPES, media_type
from orchestrator.serve.ingress.problems import Problem
from ship.errors import ImageError

__all__ = ["extract_image", "image_problem", "image_too_large", "read_body"]

FORM_PART = "image"
_FORM_EXPECTED = f"{FORM_TYPE} with exactly one file named {FORM_PART!r}"


async def read_body(headers: Headers, chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    """Read the body of a request.

    Raises:
        Problem: 413, the body is too large: by its Content-Length before anything is read, else once more
            bytes have arrived; 400, the body is empty or Content-Length is not a number.
    """
    declared = headers.get("content-length")
    if declared is not None and not (declared.isascii() and declared.isdigit()):
        raise Problem("length-invalid", "header Content-Length: expected a number of bytes")
    if declared is not None and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    if not body:
        raise Problem("body-empty", "the body is empty; expected an image or JSON")
    return bytes(body)


def extract_image(headers: Headers, body: bytes) -> bytes:
    """Extract the image file from a body: the body itself, or the one part of a form.

    Raises:
        Problem: 415, the content type is neither an image nor a form; 400, the form is not one file
            named ``image``.
    """
    kind = media_type(headers)
    if kind == FORM_TYPE:
        return _extract_from_form(headers["content-type"], body)
    if kind.startswith("image/") or kind in RAW_TYPES:
        return body
    raise Problem(
        "content-type-unsupported",
        f"Content-Type {kind[:80]!r}: expected image/*, application/octet-stream or {_FORM_EXPECTED}",
    )


def image_problem(error: ImageError) -> Problem:
    """Problem of a refused image: 415 unsupported format, 422 corrupt, 413 too many pixels."""
    return Problem(f"image-{error.kind.replace('_', '-')}", str(error))


def image_too_large(max_bytes: int) -> Problem:
    """Problem of one image of a batch that has too many bytes."""
    return Problem(
        "image-file-too-large",
        f"expected at most {max_bytes} bytes an image; send a smaller or more compressed one",
    )


def _extract_from_form(content_type: str, body: bytes) -> bytes:
    parts = read_form(content_type, body, max_parts=1, expected=_FORM_EXPECTED)
    if not (parts and parts[0].name == FORM_PART and parts[0].is_file):
        names = ", ".join(repr(part.name) for part in parts)
        kind = "a field that is no file" if parts and parts[0].name == FORM_PART else names or "no parts"
        raise form_problem(_FORM_EXPECTED, f"found {kind}")
    return bytes(parts[0].content)


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        "body-too-large",
        f"expected at most {max_bytes} bytes; send smaller or more compressed images, or fewer at a time",
    )
