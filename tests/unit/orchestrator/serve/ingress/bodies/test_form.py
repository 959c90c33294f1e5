"""Parts of a form that are read, and what reading leaves behind."""

import logging

import pytest

from orchestrator.serve.ingress.bodies.form import FORM_TYPE, read_form
from orchestrator.serve.ingress.problems import Problem


def read(body: bytes) -> list[tuple[str, bool, bytes]]:
    parts = read_form(f"{FORM_TYPE}; boundary=b", body, max_parts=2, expected="a form")
    return [(part.name, part.is_file, bytes(part.content)) for part in parts]


def test_parts_come_in_order_as_they_are() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="\xc3\xa4"\r\n\r\nx\r\n'
        b'--b\r\ncontent-disposition: form-data; name=f; filename=""\r\nA: b\r\n\r\n\r\n\r\n--b--'
    )
    assert read(body) == [("ä", False, b"x"), ("f", True, b"\r\n")]


@pytest.mark.parametrize(
    "body",
    [b"--b", b"--c\r\n", b"--b\rx", b"--b\r\nno header\r\n\r\n", b"--b\r\nA: b\rc", b"--b\r\n\r\nx\r\n--b-x"],
)
def test_an_odd_form_is_told_to_its_client_and_not_to_the_log(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Problem) as refused:
        read(body)
    assert (refused.value.status, refused.value.kind) == (400, "form-invalid")
    assert caplog.records == []


def test_the_parser_is_heard_of_what_is_worse() -> None:
    assert logging.getLogger("python_multipart.multipart").isEnabledFor(logging.ERROR)
