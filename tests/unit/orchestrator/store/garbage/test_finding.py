from orchestrator.store.garbage.finding import Garbage, References, StoreListing, find_garbage
from orchestrator.store.objects.protocol import ListedObject
from tests.unit.orchestrator.store.factory import make_key

OLD_S, LIMIT_S, YOUNG_S = 100.0, 200.0, 300.0
A, B, KEY = make_key("a"), make_key("b"), make_key("key")


def artifact(digest: str, modified_s: float = OLD_S, card_s: float | None = None) -> list[ListedObject]:
    times = {"README.md": modified_s, "prompt.json": modified_s if card_s is None else card_s}
    return [
        ListedObject(key=f"artifacts/{digest}/{name}", num_bytes=10, modified_s=at_s)
        for name, at_s in times.items()
    ]


def single(key: str, modified_s: float = OLD_S) -> ListedObject:
    return ListedObject(key=key, num_bytes=7, modified_s=modified_s)


def find(
    *,
    artifacts: list[ListedObject] | None = None,
    snapshots: list[ListedObject] | None = None,
    leftovers: list[ListedObject] | None = None,
    digests: set[str] | None = None,
    published: set[tuple[str, str]] | None = None,
) -> list[Garbage]:
    listing = StoreListing(artifacts=artifacts or [], snapshots=snapshots or [], leftovers=leftovers or [])
    references = References(digests=frozenset(digests or ()), published=frozenset(published or ()))
    return find_garbage(listing, references, before_s=LIMIT_S)


def test_an_old_artifact_that_nothing_names_goes_card_first() -> None:
    [found] = find(artifacts=[*artifact(A), *artifact(B)], digests={B})

    assert (found.kind, found.name, found.num_bytes) == ("artifact", A, 20)
    assert found.keys == (f"artifacts/{A}/prompt.json", f"artifacts/{A}/README.md")
    assert "no publication" in found.reason


def test_a_young_artifact_stays_because_its_publication_may_follow() -> None:
    assert find(artifacts=artifact(A, YOUNG_S)) == []


def test_an_artifact_is_as_young_as_its_youngest_file() -> None:
    assert find(artifacts=artifact(A, OLD_S, card_s=YOUNG_S)) == []


def test_what_was_written_at_the_limit_stays() -> None:
    assert find(artifacts=artifact(A, LIMIT_S), snapshots=[single(f"snapshots/t/{KEY}", LIMIT_S)]) == []


def test_weights_whose_configuration_never_came_go():
    half, whole, young = make_key("half"), make_key("whole"), make_key("young")
    listing = StoreListing(
        artifacts=[],
        snapshots=[],
        leftovers=[],
        backbones=[
            single(f"backbones/{half}/model.safetensors"),
            single(f"backbones/{whole}/config.json"),
            single(f"backbones/{whole}/model.safetensors"),
            single(f"backbones/{young}/model.safetensors", YOUNG_S),
            single("backbones/notes.txt"),
            single(f"backbones/{half}/notes.txt"),
        ],
    )
    references = References(digests=frozenset(), published=frozenset())
    [found] = find_garbage(listing, references, before_s=LIMIT_S)
    assert (found.kind, found.name) == ("backbone", half)
    assert found.keys == (f"backbones/{half}/model.safetensors",)


def test_old_snapshots_go_and_say_why() -> None:
    found = find(
        snapshots=[single(f"snapshots/done/{KEY}"), single(f"snapshots/left/{KEY}")],
        published={("done", KEY)},
    )

    assert [(one.name, one.reason) for one in found] == [
        (f"done/{KEY}", "its task is published"),
        (f"left/{KEY}", "its tuning was not resumed"),
    ]


def test_young_snapshots_stay_published_or_not() -> None:
    snapshots = [single(f"snapshots/{task}/{KEY}", YOUNG_S) for task in ("done", "tuning")]

    assert find(snapshots=snapshots, published={("done", KEY)}) == []


def test_old_temporary_objects_go() -> None:
    old, young = f"artifacts/{A}/.{'0' * 32}.tmp", f"artifacts/{A}/.{'1' * 32}.tmp"

    [found] = find(leftovers=[single(old), single(young, YOUNG_S)])

    assert (found.kind, found.keys) == ("temporary", (old,))


def test_what_is_not_laid_out_as_ours_is_left_alone() -> None:
    strange = ["artifacts/readme", f"artifacts/{A}/deep/er", "artifacts/xyz/prompt.json"]

    assert find(artifacts=[single(key) for key in strange], snapshots=[single("snapshots/T/k")]) == []
