"""Hostile images, names, headers, bodies and paths."""

import base64
from collections.abc import Iterator

from tests.unit.orchestrator.serve.caller import PNG
from tests.unit.orchestrator.serve.ingress.hostile_files import (
    bombs,
    polyglots,
    repeated_work,
    truncations,
    wrong_kinds,
)
from tests.unit.orchestrator.serve.ingress.hostile_request import (
    BATCH,
    INFER,
    JSON,
    TO_BOLTS,
    TO_FORM,
    Headers,
    Hostile,
    part,
    tensor,
)

__all__ = ["bodies", "headers", "images", "names", "routes"]


def images() -> Iterator[Hostile]:
    groups = (
        (bombs(), (413, 422)),
        (repeated_work(), (422,)),
        (truncations(), (415, 422)),
        (wrong_kinds(), (415,)),
        (polyglots(), (413, 415, 422)),
    )
    for group, statuses in groups:
        for name, content in group:
            yield Hostile(name=name, statuses=statuses, headers=TO_BOLTS, chunks=[content])
    for path, headers in (("/v1/explain", TO_BOLTS), ("/v1/predict", TO_FORM), (INFER, JSON)):
        for name, content in [*bombs(), *wrong_kinds()][::3]:
            body = content
            if headers is TO_FORM:
                body = part(b'name="image"; filename="../../x.png"', content) + b"--b--\r\n"
            elif headers is JSON:
                body = tensor([base64.b64encode(content).decode()])
            yield Hostile(
                name=f"{name}, by {path} {headers[-1][1][:9].decode()}",
                statuses=(413, 415, 422),
                path=path,
                headers=headers,
                chunks=[body],
            )


def names() -> Iterator[Hostile]:
    hostile: list[bytes] = [
        b"..",
        b"../../etc/passwd",
        b"..\\..\\windows",
        b"%2e%2e%2f",
        b"bolts%00",
        b"bolts\x00",
        b"Bolts",
        b"bolts/../nuts",
        b"/bolts",
        b"-bolts",
        b".bolts",
        b"_bolts",
        b"bolts\xc3\xa9",
        b"\xff\xfe",
        "\uff42\uff4f\uff4c\uff54\uff53".encode(),
        "bolts\u202e".encode(),
        b"b" * 64,
        b"b" * 8000,
        b"",
        b" ",
        b"bolts, nuts",
        b"bolts;nuts",
        b"bolts nuts",
        b"$(id)",
        b"{{7*7}}",
        b"' or 1=1 --",
        b"file:///etc/passwd",
        b"s3://bucket/key",
        b"bolts\t",
        b"con\r\nX-Injected: 1",
    ]
    for number, name in enumerate(hostile):
        yield Hostile(
            name=f"header {number} {name[:20]!r}",
            statuses=(400,),
            headers=[(b"ship-task", name), TO_BOLTS[1]],
            chunks=[PNG],
        )
        if name:
            path = name.decode("latin-1")
            for prefix, statuses in (("/v1/tasks/", (400, 404)), ("/v2/models/", (400, 404))):
                yield Hostile(
                    name=f"{prefix} {number} {name[:20]!r}",
                    statuses=statuses,
                    method="GET",
                    path=prefix + path,
                )
        yield Hostile(
            name=f"infer {number} {name[:20]!r}",
            statuses=(400, 404),
            path=f"/v2/models/{name.decode('latin-1')}/infer",
            headers=JSON,
            chunks=[tensor([base64.b64encode(PNG).decode()])],
        )


def headers() -> Iterator[Hostile]:
    def with_header(*more: tuple[bytes, bytes]) -> Headers:
        return [*TO_BOLTS, *more]

    refused: list[tuple[str, Headers]] = [
        ("two tasks", with_header((b"ship-task", b"nuts"))),
        ("a thousand tasks", with_header(*[(b"ship-task", b"t%d" % n) for n in range(1000)])),
        ("two versions", with_header((b"ship-version", b"1"), (b"ship-version", b"2"))),
        ("two keys", with_header((b"ship-key", b"1"), (b"ship-key", b"2"))),
        ("two times", with_header((b"ship-timeout", b"1"), (b"ship-timeout", b"2"))),
        ("a key of 129", with_header((b"ship-key", b"k" * 129))),
        ("a key of a megabyte", with_header((b"ship-key", b"k" * 1_000_000))),
        ("a key with a zero", with_header((b"ship-key", b"a\0b"))),
        ("a key with a line end", with_header((b"ship-key", b"a\r\nb"))),
        ("a key beyond ASCII", with_header((b"ship-key", b"\xc3\xa9"))),
        ("a version of 5000 digits", with_header((b"ship-version", b"9" * 5000))),
        ("a version below zero", with_header((b"ship-version", b"-1"))),
        ("a version in Arabic", with_header((b"ship-version", "٣".encode()))),
        ("a version of hex", with_header((b"ship-version", b"0x1"))),
        ("a version with a path", with_header((b"ship-version", b"../1"))),
        ("no time", with_header((b"ship-timeout", b"0"))),
        ("endless time", with_header((b"ship-timeout", b"inf"))),
        ("no number of seconds", with_header((b"ship-timeout", b"nan"))),
        ("time before now", with_header((b"ship-timeout", b"-5"))),
        ("time by exponent", with_header((b"ship-timeout", b"1e9"))),
        ("a length below zero", with_header((b"content-length", b"-5"))),
        ("a length in words", with_header((b"content-length", b"five"))),
        ("a length with a plus", with_header((b"content-length", b"+5"))),
        ("a length of hex", with_header((b"content-length", b"0x10"))),
        ("a length beyond ASCII", with_header((b"content-length", "²".encode("latin-1")))),
    ]
    for name, sent in refused:
        yield Hostile(name=name, statuses=(400,), headers=sent, chunks=[PNG])
    for kind in (
        b"text/html",
        b"application/x-python-pickle",
        b"multipart/mixed; boundary=b",
        b"\xff",
        b"x" * 9999,
    ):
        sent = [TO_BOLTS[0], (b"content-type", kind)]
        yield Hostile(name=f"type {kind[:30]!r}", statuses=(415,), headers=sent, chunks=[PNG])
    yield Hostile(
        name="binary tensors",
        statuses=(400,),
        path=INFER,
        headers=[*JSON, (b"inference-header-content-length", b"9")],
    )
    for accept in (b"text/html", b"image/png;q=0", b"x" * 5000, b"\xff\xfe"):
        yield Hostile(
            name=f"accept {accept[:20]!r}",
            statuses=(406,),
            path="/v1/explain",
            headers=[*TO_BOLTS, (b"accept", accept)],
            chunks=[PNG],
        )


def bodies() -> Iterator[Hostile]:
    large = [bytes(100_000)] * 20
    for path, sent in (
        ("/v1/predict", TO_BOLTS),
        ("/v1/explain", TO_BOLTS),
        (BATCH, TO_FORM),
        (INFER, JSON),
    ):
        yield Hostile(name=f"{path}: too large", statuses=(413,), path=path, headers=sent, chunks=large)
        yield Hostile(
            name=f"{path}: too large, and says so",
            statuses=(413,),
            path=path,
            headers=[*sent, (b"content-length", b"2000000")],
            chunks=[b""],
        )
        yield Hostile(
            name=f"{path}: says 10 bytes, sends 2 MB",
            statuses=(413,),
            path=path,
            headers=[*sent, (b"content-length", b"10")],
            chunks=large,
        )
        yield Hostile(
            name=f"{path}: says 10^30 bytes",
            statuses=(413,),
            path=path,
            headers=[*sent, (b"content-length", b"1" + b"0" * 30)],
        )
        yield Hostile(name=f"{path}: nothing", statuses=(400,), path=path, headers=sent)
        yield Hostile(
            name=f"{path}: hangs up",
            statuses=(400,),
            path=path,
            headers=sent,
            chunks=[b"x" * 10],
            hangs_up=True,
        )


def routes() -> Iterator[Hostile]:
    for path in (
        "/",
        "/v1",
        "/v1/predict/",
        "//v1/predict",
        "/v1/predict;x",
        "/v1/../metrics",
        "/.env",
        "/docs/",
        "/docs/../metrics",
    ):
        yield Hostile(name=f"path {path}", statuses=(404,), path=path, method="GET")
    for method in ("PUT", "DELETE", "TRACE", "PATCH", "CONNECT", "BREW", "x" * 500):
        yield Hostile(name=f"method {method[:20]}", statuses=(405,), method=method, path="/v1/tasks")
