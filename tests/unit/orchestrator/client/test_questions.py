"""What a client reads of a reply in several parts."""

import pytest

from orchestrator.client.questions import read_parts

JSON_PART, PNG_PART = (
    b"Content-Type: application/json\r\n\r\n{}",
    b"Content-Type: image/png\r\n\r\n\r\n--x\r\n",
)


@pytest.mark.parametrize(
    ("body", "is_whole"),
    [
        (b"--b\r\n" + JSON_PART + b"\r\n--b\r\n" + PNG_PART + b"\r\n--b--\r\n", True),
        (b"--b\r\n" + JSON_PART + b"\r\n--b\r\n" + PNG_PART + b"\r\n--b", False),
        (b"--b\r\n" + PNG_PART + b"\r\n--b\r\n" + JSON_PART + b"\r\n--b--\r\n", False),
        (b"--b\r\n" + JSON_PART + b"\r\n--b--\r\n", False),
        (b"--\r\n", False),
        (b"", False),
        (JSON_PART, False),
    ],
)
def test_the_parts_of_a_reply(body: bytes, is_whole: bool) -> None:
    types = ("application/json", "image/png")
    if is_whole:
        assert read_parts(body, types) == [b"{}", b"\r\n--x\r\n"]
    else:
        with pytest.raises(ValueError, match="expected"):
            read_parts(body, types)
