"""Parser of ``multipart/form-data`` bodies, in memory.

Starlette's own parser spools files to a disk, accepts a truncated body, and decodes names with any codec that
the client names. Here nothing is written, the last boundary must be there, and names are
UTF-8.
"""

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from orchestrator.serve.ingress.problems import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["FORM_TYPE", "Part", "form_problem", "read_form"]

FORM_TYPE = "multipart/form-data"
# RFC 2046 allows 70; some clients are generous.
_MAX_BOUNDARY_BYTES = 200
_MAX_NAME_CHARS = 200
# It logs a warning for each malformed form; a client that sends many would fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(kw_only=True)
class Part:
    """One part of a form.

    Attributes:
        name: Name of the field.
        is_file: Whether the part has a file name.
        content: Bytes of the part.
    """

    name: str = ""
    is_file: bool = False
    content: bytearray = field(default_factory=bytearray)


def read_form(
    content_type: str, body: bytes, *, max_parts: int, expected: str, too_many: Problem | None = None
) -> list[Part]:
    """The parts of a form, in order.

    Args:
        content_type: Header Content-Type.
        body: Whole body.
        max_parts: Most parts that are accepted.
        expected: Description of the expected form, for problems.
        too_many: Problem to raise for more parts; None for 400.

    Raises:
        Problem: 400, the form is incomplete, has too many parts, or a part without a name; or ``too_many``.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY_BYTES:
        raise form_problem(
            expected, f"the content type names no boundary, or one of more than {_MAX_BOUNDARY_BYTES} bytes"
        )
    if too_many is None:
        too_many = form_problem(expected, f"found more than {max_parts} parts")
    collector = _Collector(max_parts, expected, too_many)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise form_problem(expected, "the body is not parts between these boundaries") from error
    if not collector.is_whole:
        raise form_problem(expected, "the body ends before the last boundary")
    return collector.parts


def form_problem(expected: str, found: str) -> Problem:
    """Problem of a form that differs from the expected one."""
    return Problem("form-invalid", f"expected {expected}; {found[:300]}")


class _Collector:
    """Collector of the parts from the parser's callbacks."""

    def __init__(self, max_parts: int, expected: str, too_many: Problem) -> None:
        self.parts: list[Part] = []
        self.is_whole = False
        self._max_parts = max_parts
        self._expected = expected
        self._too_many = too_many
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}

    def callbacks(self) -> "MultipartCallbacks":
        """Callbacks for the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == self._max_parts:
            raise self._too_many
        self.parts.append(Part())
        self._headers = {}

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition"))[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name or len(name) > _MAX_NAME_CHARS:
            raise form_problem(
                self._expected, f"a part has no name, or one of more than {_MAX_NAME_CHARS} characters"
            )
        part = self.parts[-1]
        part.name, part.is_file = name, b"filename" in options

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def _end(self) -> None:
        self.is_whole = True
