"""Text of documents as their readers take it: no half of a surrogate pair, which JSON escapes and refuses.

Half a pair comes from bytes of another encoding, such as an argument in Latin-1, and from forms that say so.
"""

import re

__all__ = ["legible", "to_bytes"]

# Lines and tabs belong to a reason; what steers a terminal does not.
_ILLEGIBLE = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# A backslash, a pair or half of one, as ``json`` escapes them.
_ESCAPED = re.compile(r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(\\ud[89a-f][0-9a-f]{2})")


def legible(text: str) -> str:
    """A text of a person, with U+FFFD for each control character and each half of a surrogate pair."""
    return _ILLEGIBLE.sub("\ufffd", text)


def to_bytes(text: str) -> bytes:
    """The content of a document, from the text that ``json.dumps`` gives, with U+FFFD for half a pair."""
    if r"\ud" in text:
        text = _ESCAPED.sub(lambda found: r"\ufffd" if found[1] else found[0], text)
    return text.encode("ascii")
