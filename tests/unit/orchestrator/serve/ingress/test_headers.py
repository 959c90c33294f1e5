"""Bodies and headers that are accepted, and the status of the others."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.datastructures import Headers

from orchestrator.serve.ingress.bodies.image import extract_image, image_problem, read_body
from orchestrator.serve.ingress.headers import may_keep, read_wanted
from orchestrator.serve.ingress.problems import Problem
from orchestrator.serve.options import Limits
from ship.errors import ImageError

LIMITS = Limits(max_body_bytes=100)


class Chunks:
    """A body as it comes in; knows how much of it was taken."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.num_taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.num_taken += 1
            yield chunk


def read(headers: dict[str, str], chunks: Chunks) -> bytes:
    return asyncio.run(read_body(Headers(headers), aiter(chunks), LIMITS.max_body_bytes))


def extract(content_type: str | None, body: bytes) -> bytes:
    headers = {} if content_type is None else {"content-type": content_type}
    return extract_image(Headers(headers), body)


def form(**request: object) -> tuple[str, bytes]:
    """Content type and body of a form, as a client sends it."""
    sent = httpx.Request("POST", "http://x", **request)
    return sent.headers["content-type"], sent.read()


def test_task_and_version_come_from_headers():
    wanted = read_wanted(Headers({"ship-task": "bolts.m6", "ship-version": "12"}))
    assert (wanted.task, wanted.version) == ("bolts.m6", 12)
    assert read_wanted(Headers({"ship-task": "bolts"})).version is None


@pytest.mark.parametrize("headers", [[], [(b"ship-task", b"a"), (b"ship-task", b"b")]], ids=["none", "two"])
def test_exactly_one_task_must_be_named(headers: list[tuple[bytes, bytes]]):
    with pytest.raises(Problem, match="Ship-Task") as raised:
        read_wanted(Headers(raw=headers))
    assert (raised.value.status, raised.value.kind) == (400, "task-missing")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], True),
        (["yes"], True),
        ([" YES "], True),
        (["yes", "yes"], True),
        (["no"], False),
        (["yes", "no"], False),
        (["no", "yes"], False),
        (["yes, no"], False),
        ([""], False),
        (["true"], False),
    ],
)
def test_a_picture_may_be_kept_unless_one_header_says_otherwise(said: list[str], kept: bool):
    assert may_keep(Headers(raw=[(b"ship-keep", text.encode()) for text in said])) is kept


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "a b", "a\0", "-a", "a" * 64, "%2e%2e", "ä"])
def test_what_is_no_task_name_goes_no_further(name: str):
    with pytest.raises(Problem) as raised:
        read_wanted(Headers({"ship-task": name}))
    assert (raised.value.status, raised.value.kind) == (400, "task-invalid")


@pytest.mark.parametrize("version", ["", "latest", "-1", "1.5", "²", "9" * 5000])
def test_a_version_is_a_whole_number(version: str):
    headers = Headers(raw=[(b"ship-task", b"a"), (b"ship-version", version.encode("latin-1"))])
    with pytest.raises(Problem) as raised:
        read_wanted(headers)
    assert (raised.value.status, raised.value.kind) == (400, "version-invalid")


def test_a_body_is_put_together():
    assert read({"content-length": "4"}, Chunks(b"ab", b"", b"cd")) == b"abcd"


@pytest.mark.parametrize("length", ["101", "9" * 5000])
def test_a_body_that_says_it_is_too_large_is_not_read(length: str):
    chunks = Chunks(b"x" * 200)
    with pytest.raises(Problem, match="at most 100 bytes") as raised:
        read({"content-length": length}, chunks)
    assert raised.value.status == 413
    assert chunks.num_taken == 0


def test_a_body_that_does_not_tell_its_size_is_read_up_to_the_limit():
    chunks = Chunks(*[b"x" * 60] * 1000)
    with pytest.raises(Problem) as raised:
        read({}, chunks)
    assert raised.value.status == 413
    assert chunks.num_taken == 2


def test_a_body_that_lies_about_its_size_is_read_up_to_the_limit():
    with pytest.raises(Problem) as raised:
        read({"content-length": "5"}, Chunks(*[b"x" * 60] * 2))
    assert raised.value.status == 413


@pytest.mark.parametrize(
    ("headers", "kind"), [({}, "body-empty"), ({"content-length": "-1"}, "length-invalid")]
)
def test_a_body_without_content_or_with_a_senseless_length_is_refused(headers: dict[str, str], kind: str):
    with pytest.raises(Problem) as raised:
        read(headers, Chunks())
    assert (raised.value.status, raised.value.kind) == (400, kind)


@pytest.mark.parametrize(
    "content_type",
    [None, "image/png", "IMAGE/JPEG; q=1", "application/octet-stream", "application/x-www-form-urlencoded"],
)
def test_a_raw_body_is_the_image(content_type: str | None):
    assert extract(content_type, b"pixels") == b"pixels"


@pytest.mark.parametrize("content_type", ["text/html", "application/json", ""])
def test_other_content_types_are_refused(content_type: str):
    with pytest.raises(Problem, match=r"image/\*") as raised:
        extract(content_type, b"pixels")
    assert raised.value.status == 415


def test_a_form_with_one_file_is_unwrapped():
    assert extract(*form(files={"image": ("bolt.png", b"pixels\r\n--x")})) == b"pixels\r\n--x"


def test_a_large_form_touches_no_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    content = bytes(3 << 20)
    assert extract(*form(files={"image": ("bolt.png", content)})) == content


@pytest.mark.parametrize(
    "sent",
    [
        form(files={"photo": ("bolt.png", b"x")}),
        form(files=[("image", ("a.png", b"x")), ("image", ("b.png", b"y"))]),
        form(files={"image": ("a.png", b"x")}, data={"task": "bolts"}),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--',
        ),
        ("multipart/form-data; boundary=b", b"no form at all"),
        ("multipart/form-data", b"--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--"),
    ],
    ids=["other name", "two files", "a field too many", "no file", "broken", "no boundary", "no name"],
)
def test_a_form_that_is_not_one_image_is_refused(sent: tuple[str, bytes]):
    with pytest.raises(Problem, match="exactly one file named 'image'") as raised:
        extract(*sent)
    assert (raised.value.status, raised.value.kind) == (400, "form-invalid")


@pytest.mark.parametrize(("kind", "status"), [("unsupported", 415), ("corrupt", 422), ("too_large", 413)])
def test_images_are_refused_by_what_is_wrong_with_them(kind: str, status: int):
    problem = image_problem(ImageError("no good", kind))
    assert (problem.status, problem.detail) == (status, "no good")
