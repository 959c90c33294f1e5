import json

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.catalog import Catalog, CatalogEntry
from tests.unit.orchestrator.store.factory import make_key

ENTRIES = {
    "nuts": CatalogEntry(version=2, digest=make_key("2")),
    "bolts": CatalogEntry(version=1, digest=make_key("1")),
}


@pytest.mark.parametrize("fingerprint", [None, make_key("backbone")])
def test_it_reads_back_as_it_was_written(fingerprint: str | None) -> None:
    catalog = Catalog(entries=ENTRIES, backbone_fingerprint=fingerprint)

    assert Catalog.from_json(catalog.to_json()) == catalog


def test_the_same_content_gives_the_same_bytes() -> None:
    reverse = dict(reversed(ENTRIES.items()))

    assert Catalog(entries=ENTRIES).to_json() == Catalog(entries=reverse).to_json()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 2}, "schema: expected 1"),
        ({"extra": 1}, "exactly the keys"),
        ({"backbone_fingerprint": "abc"}, "backbone_fingerprint"),
        ({"tasks": []}, "tasks: expected an object"),
        ({"tasks": {"../x": {"version": 1, "digest": make_key("1")}}}, "../x"),
        ({"tasks": {"x": {"version": True, "digest": make_key("1")}}}, "'x'"),
        ({"tasks": {"x": {"version": 0, "digest": make_key("1")}}}, "'x'"),
        ({"tasks": {"x": {"version": 1, "digest": "abc"}}}, "'x'"),
        ({"tasks": {"x": {"version": 1}}}, "'x'"),
        ({"tasks": {"x": None}}, "'x'"),
    ],
)
def test_anything_unexpected_is_refused(change: dict[str, object], problem: str) -> None:
    values = {"schema": 1, "backbone_fingerprint": None, "tasks": {}} | change

    with pytest.raises(StoreError) as caught:
        Catalog.from_json(json.dumps(values).encode())

    assert problem in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]"])
def test_what_is_no_catalog_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match="catalog"):
        Catalog.from_json(content)
