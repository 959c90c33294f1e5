import gzip
import json
import re

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.documents.catalog import (
    MAX_CONTENT_BYTES,
    Canary,
    Catalog,
    CatalogEntry,
    IdleTask,
)
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
IDLE = {"caps": IdleTask(versions={1: make_key("caps")}), "welds": IdleTask(is_retired=True)}
# As it is written.
ENTRY = {
    "version": 1,
    "digest": make_key("1"),
    "others": {"3": make_key("3")},
    "canary": {"version": 3, "share": 0.1},
    "shadow": 3,
}


def refused(content: bytes) -> str:
    """What is wrong with the only entry of a catalog."""
    found = Catalog.from_bytes(content)
    assert not found.entries
    [broken] = found.broken.values()
    return broken.problem


def test_it_reads_back_as_it_was_written() -> None:
    catalog = Catalog(entries=ENTRIES, registry="a" * 32, idle=IDLE)

    assert Catalog.from_bytes(catalog.to_bytes()) == catalog
    assert catalog.digests == {make_key(text) for text in ("1", "2", "3", "12", "caps")}


def test_the_same_content_gives_the_same_bytes() -> None:
    reverse = dict(reversed(ENTRIES.items()))

    assert Catalog(entries=ENTRIES).to_bytes() == Catalog(entries=reverse).to_bytes()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 7}, "'schema': expected at most 6, found 7, of a later version"),
        ({"schema": True}, "'schema': Input should be"),
        ({"schema": 1.0}, "'schema': Input should be"),
        ({"schema": []}, "'schema': Input should be"),
        ({"schema": 1}, "expected the keys of schema 1"),
        ({"extra": 1}, "'extra': Extra inputs"),
        ({"backbone_fingerprint": None}, "expected the keys of schema 6"),
        ({"schema": 5}, "expected the keys of schema 5"),
        ({"schema": 4}, "expected the keys of schema 4"),
        ({"backbone": "vit"}, "'backbone': String should match pattern"),
        ({"backbones": None}, "'backbones': Input should be"),
        ({"backbones": {"abc": make_key("b")}}, "String should match pattern"),
        (
            {"backbone": make_key("b"), "backbones": {make_key("1"): None}},
            "expected artifacts that are named",
        ),
        (
            {"tasks": {"x": ENTRY}, "backbones": {make_key("1"): make_key("b")}},
            "backbones: expected none beside no backbone",
        ),
        ({"idle": None}, "'idle': Input should be"),
        ({"tasks": []}, "'tasks': Input should be an object"),
    ],
)
def test_anything_unexpected_is_refused(change: dict[str, object], problem: str) -> None:
    values = {
        "schema": 6,
        "registry": None,
        "tasks": {},
        "idle": {},
        "backbone": None,
        "backbones": {},
    } | change

    with pytest.raises(StoreError) as caught:
        Catalog.from_bytes(json.dumps(values).encode())

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"idle": {"../x": {"is_retired": True, "versions": {}}}}, "idle/../x"),
        ({"idle": {"x": {"is_retired": True}}}, "idle/x"),
        ({"idle": {"x": {"is_retired": 1, "versions": {}}}}, "idle/x"),
        ({"idle": {"x": {"is_retired": True, "versions": {"0": make_key("1")}}}}, "idle/x"),
        ({"idle": {"x": {"is_retired": True, "versions": {"1": "abc"}}}}, "idle/x"),
        ({"idle": {"x": {"is_retired": True, "versions": {}, "more": 1}}}, "idle/x"),
        (
            {"tasks": {"x": ENTRY}, "idle": {"x": {"is_retired": True, "versions": {}}}},
            "idle/x: expected a task without a champion",
        ),
        ({"tasks": {"../x": {"version": 1, "digest": make_key("1")}}}, "tasks/../x"),
        ({"tasks": {"x": {"version": True, "digest": make_key("1")}}}, "tasks/x"),
        ({"tasks": {"x": {"version": 0, "digest": make_key("1")}}}, "tasks/x"),
        ({"tasks": {"x": {"version": 1, "digest": "abc"}}}, "tasks/x"),
        ({"tasks": {"x": {"version": 1}}}, "tasks/x"),
        ({"tasks": {"x": None}}, "tasks/x"),
    ],
)
def test_an_entry_that_is_not_as_expected_concerns_its_task_alone(
    change: dict[str, dict[str, object]], problem: str
) -> None:
    values = {"schema": 5, "registry": "a" * 32, "tasks": {}, "idle": {}} | change
    values["tasks"] = {**values["tasks"], "bolts": ENTRY}
    [name] = change.get("tasks") or change["idle"]

    found = Catalog.from_bytes(json.dumps(values).encode())

    assert (list(found.entries), list(found.idle), found.registry) == (["bolts"], [], "a" * 32)
    assert problem in found.broken[name].problem.replace("'", "")
    again = Catalog.from_bytes(found.to_bytes())
    assert (again.entries, again.broken.keys()) == (found.entries, {name}), "it is kept for its repair"
    served = CatalogEntry(version=7, digest=make_key("7"))
    before = Catalog(entries={name: served, "bolts": CatalogEntry(version=9, digest=make_key("9"))})
    assert found.mended(before).entries == {**found.entries, name: served}, "its task stays as it was"
    assert Catalog.from_bytes(found.mended(None).to_bytes()).entries == found.entries


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]"])
def test_what_is_no_catalog_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match="catalog"):
        Catalog.from_bytes(content)


def test_a_catalog_of_the_first_schema_is_read() -> None:
    entry = {"version": 4, "digest": make_key("4")}
    content = json.dumps({"schema": 1, "backbone_fingerprint": None, "tasks": {"bolts": entry}}).encode()

    assert Catalog.from_bytes(content).entries == {"bolts": CatalogEntry(**entry)}


def test_a_catalog_of_the_second_schema_is_read() -> None:
    content = json.dumps({"schema": 2, "backbone_fingerprint": None, "tasks": {"bolts": ENTRY}}).encode()

    assert Catalog.from_bytes(content).entries["bolts"] == CatalogEntry(
        version=1,
        digest=make_key("1"),
        others={3: make_key("3")},
        canary=Canary(version=3, share=0.1),
        shadow=3,
    )


def test_a_catalog_of_the_third_schema_is_read() -> None:
    content = json.dumps({"schema": 3, "tasks": {"bolts": ENTRY}}).encode()

    found = Catalog.from_bytes(content)

    assert (found.entries["bolts"].shadow, found.registry) == (3, None)


def test_a_catalog_of_the_fifth_schema_is_read() -> None:
    idle = {"caps": {"is_retired": False, "versions": {"1": make_key("caps")}}}
    values = {"schema": 5, "registry": "a" * 32, "tasks": {"bolts": ENTRY}, "idle": idle}

    found = Catalog.from_bytes(json.dumps(values).encode())

    assert found.idle == {"caps": IDLE["caps"]}
    assert found.backbone_of(make_key("1")) is None


def test_backbones_read_back_and_the_ordinary_case_is_one_entry() -> None:
    first, second = make_key("backbone 1"), make_key("backbone 2")
    catalog = Catalog(entries=ENTRIES, idle=IDLE)

    one = catalog.with_backbones(lambda digest: first)
    two = catalog.with_backbones({make_key("1"): second, make_key("2"): first, make_key("3"): first}.get)

    assert (one.backbone, one.backbones) == (first, {})
    for found in (one, two, catalog):
        assert Catalog.from_bytes(found.to_bytes()) == found
    assert [two.backbone_of(make_key(text)) for text in ("1", "2", "3", "12", "caps")] == [
        second,
        first,
        first,
        None,
        None,
    ]
    assert two.with_backbones(lambda digest: None) == catalog, "what is not known any more is left out"


def test_rules_of_the_named_artifacts_read_back() -> None:
    ruled = CatalogEntry(version=1, digest=make_key("1"), rules={make_key("1"): make_key("rule")})
    catalog = Catalog(entries={**ENTRIES, "gears": ruled})

    assert Catalog.from_bytes(catalog.to_bytes()) == catalog
    assert json.loads(catalog.to_bytes())["schema"] == 6


def test_rules_of_a_task_without_a_champion_read_back() -> None:
    waiting = IdleTask(versions={1: make_key("1")}, rules={make_key("1"): make_key("rule")})
    catalog = Catalog(entries=ENTRIES, idle={"gears": waiting})

    assert Catalog.from_bytes(catalog.to_bytes()) == catalog
    other = Catalog(entries={}, idle={"gears": IdleTask(rules=waiting.rules)})
    [broken] = Catalog.from_bytes(other.to_bytes()).broken.values()
    assert "idle/gears: rules: expected rules of the artifacts that are named" in broken.problem


@pytest.mark.parametrize(
    ("schema", "rules", "problem"),
    [
        (4, {make_key("3"): make_key("rule")}, "expected exactly the keys"),
        (5, {make_key("4"): make_key("rule")}, "rules: expected rules of the artifacts that are named"),
        (5, {make_key("3"): "short"}, "String should match pattern"),
        (5, None, "should be an object"),
    ],
)
def test_other_rules_are_refused(schema: int, rules: object, problem: str) -> None:
    values = {"schema": schema, "registry": None, "tasks": {"bolts": {**ENTRY, "rules": rules}}}
    if schema == 5:
        values["idle"] = {}

    assert problem in refused(json.dumps(values).encode())


def large(num_tasks: int) -> Catalog:
    entry = CatalogEntry(version=20, digest="a" * 64, others={n: f"{n:064x}" for n in range(1, 7)})
    return Catalog(entries={f"plant-ulm-line-{number:06d}": entry for number in range(num_tasks)})


def test_a_large_catalog_is_compressed_and_reads_back() -> None:
    catalog = large(3000)

    content = catalog.to_bytes()

    assert len(content) < 300_000
    assert content == large(3000).to_bytes(), "the same content gives the same bytes"
    assert Catalog.from_bytes(content) == catalog


@pytest.mark.parametrize("keep", [5, 100, -1])
def test_a_torn_one_is_refused(keep: int) -> None:
    with pytest.raises(StoreError, match=r"catalog: (torn|it cannot)"):
        Catalog.from_bytes(large(3000).to_bytes()[:keep])


def test_what_unpacks_to_more_than_a_reader_takes_is_refused() -> None:
    with pytest.raises(StoreError, match="more than 268435456 bytes when it is unpacked"):
        Catalog.from_bytes(gzip.compress(b" " * (MAX_CONTENT_BYTES + 1), compresslevel=1))


def test_what_could_not_be_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.documents.catalog.MAX_CATALOG_BYTES", 10_000)

    with pytest.raises(StoreError, match=r"catalog: 3000 tasks take .* the one before stays"):
        large(3000).to_bytes()


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
    values = {"schema": 4, "registry": "a" * 32, "tasks": {"bolts": ENTRY}}
    assert Catalog.from_bytes(json.dumps(values).encode()).entries["bolts"].shadow == 3
    values["tasks"] = {"bolts": ENTRY | change}

    assert re.search(f"tasks/bolts.*{problem}", refused(json.dumps(values).encode()))


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
@pytest.mark.parametrize("key", ["others", "canary", "shadow"])
def test_an_entry_has_the_keys_of_its_schema(schema: int, key: str) -> None:
    entry = {"version": 1, "digest": make_key("1")} if schema == 1 else ENTRY
    changed = {**entry, key: None} if schema == 1 else {name: entry[name] for name in entry if name != key}
    values = {"schema": schema, "tasks": {"bolts": changed}} | (
        {1: {"backbone_fingerprint": None}, 2: {"backbone_fingerprint": None}, 4: {"registry": None}}.get(
            schema, {}
        )
    )

    assert "tasks/bolts" in refused(json.dumps(values).encode())


def test_a_refusal_repeats_nothing_of_the_content() -> None:
    values = {"schema": 3, "tasks": {"bolts": ENTRY | {"digest": "very-secret"}}}
    assert "very-secret" not in refused(json.dumps(values).encode())
    values["extra"] = "very-secret"

    with pytest.raises(StoreError) as caught:
        Catalog.from_bytes(json.dumps(values).encode())

    assert "very-secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_share_that_is_no_number_is_refused() -> None:
    values = {"schema": 4, "registry": "a" * 32, "tasks": {"bolts": ENTRY}}
    content = json.dumps(values).replace("0.1", "NaN").encode()

    assert "canary" in refused(content)
