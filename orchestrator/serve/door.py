"""What is checked of a request before its image is decoded: task, version, size, content type, form.

Nothing of it touches a disk: bodies are capped and stay in memory. It knows no Ray and no engine.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from orchestrator.names import is_task_name
from orchestrator.serve.options import Limits
from orchestrator.serve.problems import Problem
from ship.errors import ImageError

__all__ = [
    "TASK_HEADER",
    "VERSION_HEADER",
    "Wanted",
    "check_task",
    "extract_image",
    "image_problem",
    "read_body",
    "read_wanted",
]

TASK_HEADER, VERSION_HEADER = "Ship-Task", "Ship-Version"
FORM_PART = "image"
_MULTIPART = "multipart/form-data"
# The last is what `curl --data-binary` says of any body. The content decides in the end, not its name.
_RAW = ("application/octet-stream", "application/x-www-form-urlencoded")
_MAX_VERSION_DIGITS = 9
# A boundary and the headers of one part take about 300 bytes.
_MAX_FORM_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Whom a request is for.

    Attributes:
        task: A valid name, which need not exist.
        version: None for whichever is served.
    """

    task: str
    version: int | None


def read_wanted(headers: Headers) -> Wanted:
    """The task and version that the headers name.

    Raises:
        Problem: 400, the task is missing, ambiguous or no task name, or the version is no number. No task
            can have an invalid name, but 404 would tell the client to look for it.
    """
    tasks = set(headers.getlist(TASK_HEADER))
    if len(tasks) != 1:
        found = f"found {len(tasks)} different ones" if tasks else "there is none"
        raise Problem(
            400,
            "task-missing",
            "No task was named",
            f"expected one header {TASK_HEADER} that names the task, {found}; GET /v1/tasks lists all tasks",
        )
    version = headers.get(VERSION_HEADER)
    if version is not None and not (
        version.isascii() and version.isdigit() and len(version) <= _MAX_VERSION_DIGITS
    ):
        raise Problem(
            400,
            "version-invalid",
            "Not a version",
            f"header {VERSION_HEADER}: expected a whole number such as 3, found {version[:40]!r}",
        )
    return Wanted(task=check_task(tasks.pop()), version=None if version is None else int(version))


def check_task(task: str) -> str:
    """Return ``task`` unchanged.

    Raises:
        Problem: 400, it is no task name.
    """
    if not is_task_name(task):
        raise Problem(
            400,
            "task-invalid",
            "Not a task name",
            f"{task[:80]!r}: expected 1 to 63 characters of a-z, 0-9, '.', '_' and '-', starting with a "
            "letter or digit; GET /v1/tasks lists all tasks",
        )
    return task


async def read_body(headers: Headers, chunks: AsyncIterator[bytes], limits: Limits) -> bytes:
    """The request's body.

    Raises:
        Problem: 413, it is too large: by its Content-Length before anything is read, else as soon as more
            has come in; 400, it is empty or Content-Length is no number.
    """
    declared = headers.get("content-length")
    if declared is not None and not (declared.isascii() and declared.isdigit()):
        raise Problem(400, "length-invalid", "Not a length", "Content-Length: expected a number of bytes")
    if declared is not None and int(declared[:20]) > limits.max_body_bytes:
        raise _too_large(limits)
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits)
    if not body:
        raise Problem(
            400, "body-empty", "No image was sent", "the body is empty; expected the bytes of an image"
        )
    return bytes(body)


async def extract_image(headers: Headers, body: bytes) -> bytes:
    """The image file in a body: the body itself, or the one part of a form.

    Raises:
        Problem: 415, the content type is neither an image nor a form; 400, the form is not one file
            named ``image``.
    """
    content_type = headers.get("content-type", _RAW[0])
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _MULTIPART:
        return await _extract_from_form(headers, body)
    if kind.startswith("image/") or kind in _RAW:
        return body
    raise Problem(
        415,
        "content-type-unsupported",
        "Unsupported content type",
        f"Content-Type {content_type[:80]!r}: expected image/*, application/octet-stream or {_MULTIPART} "
        f"with one file named {FORM_PART!r}",
    )


def image_problem(error: ImageError) -> Problem:
    """How a refused image is answered: 415 for a format not taken, 422 if broken, 413 for too many pixels."""
    status, title = {
        "unsupported": (415, "Not an image of a supported format"),
        "corrupt": (422, "The image is broken"),
        "too_large": (413, "The image has too many pixels"),
    }[error.kind]
    return Problem(status, f"image-{error.kind.replace('_', '-')}", title, str(error))


async def _extract_from_form(headers: Headers, body: bytes) -> bytes:
    parser = MultiPartParser(headers, _once(body), max_files=1, max_fields=0)
    # Never spool to a file: the body is in memory anyway.
    parser.spool_max_size = len(body) + _MAX_FORM_OVERHEAD_BYTES
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _bad_form(error.message) from error
    try:
        part = form.get(FORM_PART)
        if not isinstance(part, UploadFile):
            raise _bad_form(f"found {', '.join(form.keys()) or 'no parts'}")
        return await part.read()
    finally:
        await form.close()


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _bad_form(found: str) -> Problem:
    return Problem(
        400,
        "form-invalid",
        "Not the form that was expected",
        f"expected {_MULTIPART} with exactly one file named {FORM_PART!r}: {found[:200]}",
    )


def _too_large(limits: Limits) -> Problem:
    return Problem(
        413,
        "body-too-large",
        "The request is too large",
        f"expected at most {limits.max_body_bytes} bytes; send a smaller or more compressed image",
    )
