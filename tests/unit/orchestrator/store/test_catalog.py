import json

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.catalog import Canary, Catalog, CatalogEntry
from tests.unit.orchestrator.store.factory import make_key

ENTRIES = {
    "nuts": CatalogEntry(version=2, digest=make_key("2")),
    "bolts": CatalogEntry(
        version=1,
        digest=make_key("1"),
        others={3: make_key("3"), 12: make_key("12")},
        canary=Canary(version=3, share=0.1),
        shadow=12,
    ),
}
# As it is written.
ENTRY = {
    "version": 1,
    "digest": make_key("1"),
    "others": {"3": make_key("3")},
    "canary": {"version": 3, "share": 0.1},
    "shadow": 3,
}


def test_it_reads_back_as_it_was_written() -> None:
    catalog = Catalog(entries=ENTRIES)

    assert Catalog.from_json(catalog.to_json()) == catalog


def test_the_same_content_gives_the_same_bytes() -> None:
    reverse = dict(reversed(ENTRIES.items()))

    assert Catalog(entries=ENTRIES).to_json() == Catalog(entries=reverse).to_json()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 4}, "'schema': Input should be less than or equal to 3; update this program"),
        ({"schema": True}, "'schema': Input should be"),
        ({"schema": 1.0}, "'schema': Input should be"),
        ({"schema": []}, "'schema': Input should be"),
        ({"schema": 1}, "expected the keys of schema 1"),
        ({"extra": 1}, "'extra': Extra inputs"),
        ({"backbone_fingerprint": None}, "expected the keys of schema 3"),
        ({"tasks": []}, "'tasks': Input should be an object"),
        ({"tasks": {"../x": {"version": 1, "digest": make_key("1")}}}, "tasks/../x"),
        ({"tasks": {"x": {"version": True, "digest": make_key("1")}}}, "tasks/x"),
        ({"tasks": {"x": {"version": 0, "digest": make_key("1")}}}, "tasks/x"),
        ({"tasks": {"x": {"version": 1, "digest": "abc"}}}, "tasks/x"),
        ({"tasks": {"x": {"version": 1}}}, "tasks/x"),
        ({"tasks": {"x": None}}, "tasks/x"),
    ],
)
def test_anything_unexpected_is_refused(change: dict[str, object], problem: str) -> None:
    values = {"schema": 3, "tasks": {}} | change

    with pytest.raises(StoreError) as caught:
        Catalog.from_json(json.dumps(values).encode())

    assert problem in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]"])
def test_what_is_no_catalog_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match="catalog"):
        Catalog.from_json(content)


def test_a_catalog_of_the_first_schema_is_read() -> None:
    entry = {"version": 4, "digest": make_key("4")}
    content = json.dumps({"schema": 1, "backbone_fingerprint": None, "tasks": {"bolts": entry}}).encode()

    assert Catalog.from_json(content).entries == {"bolts": CatalogEntry(**entry)}


def test_a_catalog_of_the_second_schema_is_read() -> None:
    content = json.dumps({"schema": 2, "backbone_fingerprint": None, "tasks": {"bolts": ENTRY}}).encode()

    assert Catalog.from_json(content).entries["bolts"] == CatalogEntry(
        version=1,
        digest=make_key("1"),
        others={3: make_key("3")},
        canary=Canary(version=3, share=0.1),
        shadow=3,
    )


def test_all_versions_that_can_be_had_are_told() -> None:
    assert ENTRIES["bolts"].versions == {1: make_key("1"), 3: make_key("3"), 12: make_key("12")}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"extra": 1}, "extra"),
        ({"version": 0}, "version"),
        ({"others": [3]}, "others"),
        ({"others": {"03": make_key("3")}, "canary": None, "shadow": None}, "others"),
        ({"others": {"1": make_key("1")}, "canary": None, "shadow": None}, "others"),
        ({"others": {"3": "abc"}}, "others"),
        ({"canary": {"version": 4, "share": 0.1}}, "canary"),
        ({"canary": {"version": 1, "share": 0.1}}, "canary"),
        ({"canary": {"version": 3, "share": 1.0}}, "canary"),
        ({"canary": {"version": 3, "share": 0}}, "canary"),
        ({"canary": {"version": 3, "share": True}}, "canary"),
        ({"canary": {"version": 3}}, "canary"),
        ({"canary": 3}, "canary"),
        ({"shadow": 4}, "shadow"),
        ({"shadow": "3"}, "shadow"),
    ],
)
def test_an_entry_that_does_not_hold_together_is_refused(change: dict[str, object], problem: str) -> None:
    values = {"schema": 3, "tasks": {"bolts": ENTRY}}
    assert Catalog.from_json(json.dumps(values).encode()).entries["bolts"].shadow == 3
    values["tasks"] = {"bolts": ENTRY | change}

    with pytest.raises(StoreError, match=f"tasks/bolts.*{problem}"):
        Catalog.from_json(json.dumps(values).encode())


@pytest.mark.parametrize("schema", [1, 2, 3])
@pytest.mark.parametrize("key", ["others", "canary", "shadow"])
def test_an_entry_has_the_keys_of_its_schema(schema: int, key: str) -> None:
    entry = {"version": 1, "digest": make_key("1")} if schema == 1 else ENTRY
    changed = {**entry, key: None} if schema == 1 else {name: entry[name] for name in entry if name != key}
    values = {"schema": schema, "tasks": {"bolts": changed}} | (
        {} if schema == 3 else {"backbone_fingerprint": None}
    )

    with pytest.raises(StoreError, match=r"tasks/bolts"):
        Catalog.from_json(json.dumps(values).encode())


def test_a_refusal_repeats_nothing_of_the_content() -> None:
    values = {"schema": 3, "tasks": {"bolts": ENTRY | {"digest": "very-secret"}}}

    with pytest.raises(StoreError) as caught:
        Catalog.from_json(json.dumps(values).encode())

    assert "very-secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_share_that_is_no_number_is_refused() -> None:
    values = {"schema": 3, "tasks": {"bolts": ENTRY}}
    content = json.dumps(values).replace("0.1", "NaN").encode()

    with pytest.raises(StoreError, match="canary"):
        Catalog.from_json(content)
