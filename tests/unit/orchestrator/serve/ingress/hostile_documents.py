"""Hostile forms, and hostile JSON for both routes that read it."""

import json
from collections.abc import Iterator

from tests.unit.orchestrator.serve.caller import PNG
from tests.unit.orchestrator.serve.ingress.hostile_request import (
    BATCH,
    END,
    FORM,
    IMAGE,
    INFER,
    JSON,
    MANY,
    TO_BOLTS,
    TO_FORM,
    Hostile,
    part,
    tensor,
)

__all__ = ["documents", "forms"]


def forms() -> Iterator[Hostile]:
    def form(name: str, body: bytes, kind: bytes = FORM, statuses: tuple[int, ...] = (400,)) -> Hostile:
        sent = [TO_BOLTS[0], (b"content-type", kind)]
        return Hostile(name=f"form: {name}", statuses=statuses, headers=sent, chunks=[body])

    nested = b"Content-Type: multipart/mixed; boundary=c\r\n"
    yield form("no boundary", IMAGE + END, b"multipart/form-data")
    yield form("an empty boundary", IMAGE + END, b"multipart/form-data; boundary=")
    yield form("another boundary", IMAGE + END, b"multipart/form-data; boundary=other")
    yield form("a boundary of 5000", IMAGE + END, b"multipart/form-data; boundary=" + b"b" * 5000)
    yield form("a boundary beyond ASCII", IMAGE + END, b"multipart/form-data; boundary=\xff\xfe")
    yield form("two boundaries", IMAGE + END, b"multipart/form-data; boundary=x; boundary=y")
    yield form("no end", IMAGE)
    yield form("half an end", IMAGE + b"--b-")
    yield form("only an end", END)
    yield form("not a form", PNG)
    yield form("line ends alone", b"\r\n" * 5000)
    yield form(
        "a part in a part",
        part(b'name="image"; filename="x"', b"--c\r\n\r\n" + PNG + b"\r\n--c--", nested) + END,
        statuses=(415,),
    )
    yield form("no headers", b"--b\r\n\r\n" + PNG + b"\r\n" + END)
    yield form("no name", part(b'filename="x"', PNG) + END)
    yield form("an empty name", part(b'name=""; filename="x"', PNG) + END)
    yield form("a name that is a path", part(b'name="../../image"; filename="x"', PNG) + END)
    yield form("a name of 60,000", part(b'name="' + b"n" * 60_000 + b'"; filename="x"', PNG) + END)
    yield form("a file name of 60,000", part(b'name="image"; filename="' + b"n" * 60_000 + b'"', PNG) + END)
    yield form("a name with a zero", part(b'name="ima\0ge"; filename="x"', PNG) + END)
    yield form("no file", part(b'name="image"', PNG) + END)
    yield form("two files", IMAGE + IMAGE + END)
    yield form("three thousand parts", IMAGE[:80] + MANY + END)
    yield form("a thousand headers", part(b'name="image"; filename="x"', PNG, b"X-A: b\r\n" * 1000) + END)
    yield form(
        "a header of 100,000",
        part(b'name="image"; filename="x"', PNG, b"X-A: " + b"b" * 100_000 + b"\r\n") + END,
    )
    yield form("a header without a colon", part(b'name="image"; filename="x"', PNG, b"nothing\r\n") + END)
    yield form("a header of zeros", part(b'name="image"; filename="x"', PNG, b"\0: \0\r\n") + END)
    yield form("headers without an end", b"--b\r\nContent-Disposition: form-data; name=")
    yield form("another disposition", b"--b\r\nContent-Disposition: attachment\r\n\r\n" + PNG + b"\r\n" + END)
    for charset in (b"undefined", b"idna", b"unicode_escape", b"utf-7", b"hex", b"zlib", b"rot13", b"../x"):
        body = part(b'name="\xff\xfe\\ud800"; filename="x"', PNG) + END
        yield form(f"charset {charset.decode()}", body, FORM + b"; charset=" + charset)


def documents() -> Iterator[Hostile]:
    """JSON for both routes that read it."""
    deep = b"[" * 100_000 + b"]" * 100_000
    anywhere: list[tuple[str, bytes]] = [
        ("empty object", b"{}"),
        ("array", b"[]"),
        ("null", b"null"),
        ("number", b"7"),
        ("string", b'"x"'),
        ("NaN", b"NaN"),
        ("Infinity", b'{"inputs": Infinity, "items": Infinity}'),
        ("nested deep", deep),
        ("objects nested deep", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        ("nested deep within a key", b'{"items": ' + deep + b', "inputs": []}'),
        ("brackets in a string, and then deep", b'{"items": "]]]]", "x": ' + deep + b"}"),
        ("a string without an end", b'{"items": "' + b"[" * 1000),
        ("a key twice", b'{"items": [], "items": [], "inputs": [], "inputs": []}'),
        ("a key a thousand times", b"{" + b",".join([b'"k":1'] * 1500) + b"}"),
        ("an integer of 100,000 digits", b'{"items": [' + b"9" * 100_000 + b"]}"),
        ("an exponent of 10^9", b'{"items": [1e999999999], "inputs": [1e999999999]}'),
        ("no UTF-8", b'{"items": "\xff\xfe"}'),
        ("UTF-16", '{"items": []}'.encode("utf-16")),
        ("a byte order mark", b"\xef\xbb\xbf{}"),
        ("a lone surrogate", b'{"\\ud800": 1}'),
        ("a zero", b'{"items\\u0000": 1}'),
        ("a trailing comma", b'{"items": [],}'),
        ("two documents", b"{}{}"),
        ("python", b"__import__('os').system('id')"),
        ("a hundred thousand keys", b"{" + b",".join(b'"k%d":1' % n for n in range(20_000)) + b"}"),
        ("prototype", b'{"__proto__": {"admin": true}}'),
        ("a class", b'{"__class__": "os.system"}'),
    ]
    for name, content in anywhere:
        yield Hostile(name=f"infer: {name}", statuses=(400,), path=INFER, headers=JSON, chunks=[content])
        yield batch(f"batch: {name}", content)
    yield from _batches()
    yield from _tensors()


def batch(
    name: str, document: bytes, statuses: tuple[int, ...] = (400,), images_: bytes | None = None
) -> Hostile:
    image = part(b'name="a"; filename="a"', PNG) if images_ is None else images_
    body = part(b'name="request"', document) + image + END
    return Hostile(name=name, statuses=statuses, path=BATCH, headers=[(b"content-type", FORM)], chunks=[body])


def _batches() -> Iterator[Hostile]:
    item = {"image": "a", "task": "bolts"}
    for changed in (
        {"image": "../../etc/passwd"},
        {"image": "b"},
        {"image": ""},
        {"image": "\ud800"},
        {"image": 1},
        {"image": ["a"]},
        {"task": None},
        {"task": "\ud800"},
        {"task": {"a": 1}},
        {"version": 1e400},
        {"version": 2**70},
        {"version": -1},
        {"version": "1"},
        {"version": None},
        {"key": "k" * 129},
        {"key": "\u0000"},
        {"key": ""},
        {"key": 5},
        {"more": 1},
        {"__class__": "x"},
    ):
        document = json.dumps({"items": [{**item, **changed}]}).encode()
        yield batch(f"batch: item with {json.dumps(changed)[:40]}", document)
    yield batch("batch: more items than may be", json.dumps({"items": [item] * 9}).encode(), (413,))
    images_ = b"".join(part(b'name="i%d"; filename="x"' % number, PNG) for number in range(5))
    yield batch("batch: more images than may be", json.dumps({"items": [item]}).encode(), (413,), images_)
    yield batch(
        "batch: thousands of images",
        json.dumps({"items": [item]}).encode(),
        (413,),
        b"".join(part(b'name="i%d"; filename="x"' % number, b"") for number in range(3000)),
    )
    twice = part(b'name="a"; filename="a"', PNG) * 2
    yield batch("batch: two parts of one name", json.dumps({"items": [item]}).encode(), (400,), twice)
    body = part(b'name="a"; filename="a"', PNG)
    for name, content in (("no end", body), ("no parts", END), ("no form", PNG)):
        yield Hostile(name=f"batch: {name}", statuses=(400,), path=BATCH, headers=TO_FORM, chunks=[content])
    yield Hostile(name="batch: raw image", statuses=(415,), path=BATCH, headers=TO_BOLTS, chunks=[PNG])


def _tensors() -> Iterator[Hostile]:
    pixels = [0] * 3072
    for name, content in (
        ("a shape below zero", tensor(pixels, [-1, 3, 32, 32], "UINT8")),
        ("a shape of zero", tensor([], [0, 3, 32, 32], "UINT8")),
        ("a shape of 2^62", tensor(pixels, [2**62, 3, 32, 32], "UINT8")),
        ("a shape of 10^400", tensor(pixels, [10**400], "UINT8")),
        ("a shape of fractions", tensor(pixels, [1.5, 3, 32, 32], "UINT8")),
        ("a shape of text", tensor(pixels, ["3"], "UINT8")),
        ("a shape of 64 dimensions", tensor(pixels, [1] * 64, "UINT8")),
        ("a shape that is none", tensor(pixels, [], "UINT8")),
        ("channels last", tensor(pixels, [32, 32, 3], "UINT8")),
        ("fewer pixels than it says", tensor(pixels[:-1], [3, 32, 32], "UINT8")),
        ("ragged pixels", tensor([[1], [2, 3]], [3, 32, 32], "UINT8")),
        ("pixels of 256", tensor([256] * 3072, [3, 32, 32], "UINT8")),
        ("pixels of 2^80", tensor([2**80] * 3072, [3, 32, 32], "UINT8")),
        ("pixels of text", tensor(["0"] * 3072, [3, 32, 32], "UINT8")),
        ("pixels of null", tensor([None] * 3072, [3, 32, 32], "UINT8")),
        ("pixels of objects", tensor([{}] * 3072, [3, 32, 32], "UINT8")),
        ("pixels of truths", tensor([True] * 3072, [3, 32, 32], "UINT8")),
        ("pixels of fractions", tensor([0.5] * 3072, [3, 32, 32], "UINT8")),
        ("pixels of infinity", tensor(pixels, [3, 32, 32], "UINT8").replace(b"[0, 0", b"[1e999, 0")),
        ("data that is text", tensor("AAAA", [3, 32, 32], "UINT8")),
        ("data that is an object", tensor({"0": 1}, [3, 32, 32], "UINT8")),
        ("object data", tensor(pixels, [3, 32, 32], "OBJECT")),
        ("no datatype", tensor(pixels, [3, 32, 32], "")),
        ("base64 of junk", tensor(["%%%%"])),
        ("base64 without its end", tensor(["QUJD" * 100 + "Q"])),
        ("base64 with line ends", tensor(["QUJD\nQUJD"])),
        ("base64 for URLs", tensor(["_-_-"])),
        ("base64 beyond ASCII", tensor(["é" * 100])),
        ("nothing in base64", tensor([None])),
        ("a shape that does not fit", tensor(["QUJD"], [2])),
        ("two tensors", json.dumps({"inputs": [{}, {}]}).encode()),
        ("a tensor of another name", tensor(["QUJD"]).replace(b'"image"', b'"../x"')),
        ("an id of a megabyte", tensor(["QUJD"], id="x" * 300_000)),
        ("an id with line ends", tensor(["QUJD"], id="a\r\nb")),
        ("an id of a surrogate", tensor(["QUJD"], id="\ud800")),
        ("an id that is a number", tensor(["QUJD"], id=7)),
        ("an output that is none", tensor(["QUJD"], outputs=[{"name": "../x"}])),
        ("a thousand outputs", tensor(["QUJD"], outputs=[{"name": "label"}] * 1000)),
    ):
        yield Hostile(name=f"infer: {name}", statuses=(400,), path=INFER, headers=JSON, chunks=[content])
    yield Hostile(
        name="infer: more images than may be",
        statuses=(413,),
        path=INFER,
        headers=JSON,
        chunks=[tensor(["QUJD"] * 5, [5])],
    )
    yield Hostile(
        name="infer: nothing in an image", statuses=(422,), path=INFER, headers=JSON, chunks=[tensor([""])]
    )
