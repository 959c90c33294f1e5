"""Whatever characters a store's place has: it holds what was written there and nothing else, or is refused.

Literal text is no pattern, and nothing is cut off: names that match each other are different places.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.objects.fsspec_objects import FsspecObjects
from orchestrator.store.objects.open import ObjectStore, open_objects

ODD = "ab[]*?! #%:;@&=+,~'\"\\{}$é.-\n"
PARTS = st.text(ODD, min_size=1, max_size=8)
# What takes several characters to be odd.
SPECIAL = st.sampled_from(["::", "..", ".", "%2e", "%2F", "a%20b", "[ab]", "a*", "x://y", "~", "#a=b"])
PLACES = st.lists(PARTS | SPECIAL, min_size=1, max_size=3).map("/".join)
PAIRS = st.tuples(PLACES, PLACES) | st.sampled_from(
    [
        *(("[ab]", "a"), ("a*", "ab"), ("a?", "ab"), ("a", "a b")),
        *(("a", "a#b"), ("a%20b", "a b"), ("a", "a::b")),
    ]
)
MAX_EXAMPLES = 15

_numbers = itertools.count()


class Copying(LocalFileSystem):
    """A file system that has no rename of its own: what it inherits takes names for patterns."""

    protocol = "copying"
    cachable = False
    mv = AbstractFileSystem.mv


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ship odd [1]* #%20 "))
    yield folder
    shutil.rmtree(folder)


def check_apart(make: Callable[[str], ObjectStore], first: str, second: str) -> None:
    """What is done in the one place shows there, and changes nothing in the other."""
    try:
        one, other = make(first), make(second)
    except StoreError:
        return
    if one.url == other.url or other.url.startswith(f"{one.url}/") or one.url.startswith(f"{other.url}/"):
        # Such as of `a/../b` and `b`, which are one folder.
        return
    other.put("k/a.json", b"other")
    etag = one.put("k/a.json", b"one")
    assert one.put_new("k/b.json", b"new")
    assert not one.put_new("k/b.json", b"newer")
    with pytest.raises(ObjectConflict):
        one.put("k/a.json", b"x", if_match="0" * 64)
    one.put("k/a.json", b"two", if_match=etag)
    assert list(one.list("")) == list(one.list("k/")) == ["k/a.json", "k/b.json"]
    assert [found.num_bytes for found in one.scan("k/a")] == [3]
    assert list(one.leftovers()) == []
    # Its URL names what was written.
    assert open_objects_as(make, one).get("k/a.json").data == b"two"
    for key in ("k/a.json", "k/b.json"):
        one.delete(key)
        assert not one.exists(key)
        with pytest.raises(ObjectMissing):
            one.get(key)
    assert list(one.list("")) == []
    assert other.get("k/a.json").data == b"other"
    assert list(other.list("")) == ["k/a.json"]


def open_objects_as(make: Callable[[str], ObjectStore], store: ObjectStore) -> ObjectStore:
    return FsspecObjects(store.url) if isinstance(store, FsspecObjects) else open_objects(store.url)


@given(PAIRS)
@settings(max_examples=MAX_EXAMPLES, deadline=None)
@pytest.mark.parametrize("kind", ["path", "file URL", "local://", "copying://"])
def test_folders(base: Path, kind: str, pair: tuple[str, str]) -> None:
    fsspec.register_implementation("copying", Copying, clobber=True)
    root = base / f"{next(_numbers)}"

    def make(place: str) -> ObjectStore:
        text = f"{root}/{place}"
        match kind:
            case "path":
                return open_objects(text)
            case "file URL":
                return open_objects(f"file://{quote(text)}")
            case _:
                return FsspecObjects(f"{kind}{text}")

    check_apart(make, *pair)
    left = [path for path in base.rglob("*") if path.is_file() and path.name != ".lock"]
    assert all(path.read_bytes() == b"other" for path in left)
    if ".." not in "/".join(pair):
        assert all(path.is_relative_to(root) for path in left)
    for folder in base.iterdir():
        shutil.rmtree(folder)


@given(PAIRS)
@settings(max_examples=MAX_EXAMPLES, deadline=None)
def test_memory(pair: tuple[str, str]) -> None:
    number = next(_numbers)
    check_apart(lambda place: open_objects(f"memory://{number}/{place}"), *pair)


@pytest.mark.parametrize(
    "url",
    [
        "file://data/store",
        "file://~/store",
        "file:/data/store",
        "file://",
        "file:///data/a?b",
        "file:///data/a#b",
        "file:///data/%00",
        "s3:/bucket",
        "gs:/bucket/prefix",
        "s3://",
        "s3:///prefix",
        "s3://bucket//prefix",
        "s3://bucket/a//b",
        "s3://bucket/../other",
        "s3://bucket/a/./b",
        "s3://bucket/a?b",
        "s3://bucket?versionId=1",
        "s3://bucket/a#b",
        "s3://bucket#a",
        "s3://bucket/a*",
        "s3://bucket/[a]",
        "s3://bucket/a b",
        "s3://bucket/a%20b",
        "s3://bucket/a\n",
        "s3://buc ket/a",
        "s3://bucket/a::b",
        "memory://a//b",
        "memory://a/../b",
        "memory://a/./b",
        "memory://..",
        "memory://a::b",
        "memory://a@b/c",
        "memory://a?b",
        "simplecache::memory://a",
        "local:///",
        "/",
        "file:///",
        "local://",
        "FILE:///data",
        "~no-such-user/store",
        "",
        "a\0b",
    ],
)
def test_a_place_that_could_be_read_in_two_ways_is_refused_by_name(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as refused:
        open_objects(url)
    # A query or a user may be a secret.
    named = url.partition("?")[0].rpartition("@")[2].rstrip("/\n").encode("unicode_escape").decode()
    assert named in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:///data/a%23b%3F", "/data/a#b?"),
        ("file://localhost/data", "/data"),
        ("file:///data/%FF", os.fsdecode(b"/data/\xff")),
        ("/data//a/./b/../c/", "/data/a/c"),
        ("/data/a%20b", "/data/a%20b"),
        ("/data/a::b", "/data/a::b"),
    ],
)
def test_a_folder_is_the_one_that_is_named(url: str, folder: str) -> None:
    store = open_objects(url)
    assert store.url == Path(folder).as_uri() == open_objects(store.url).url


def test_a_loop_of_links_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StoreError, match="/a"):
        open_objects(str(tmp_path / "a")).put("k", b"")


@example("~/x")
@given(st.text(ODD + "/s3gsmemoryfile:", max_size=30))
@settings(max_examples=MAX_EXAMPLES * 4, deadline=None)
def test_any_text_is_a_store_or_refused(text: str) -> None:
    try:
        store = open_objects(text)
    except StoreError:
        return
    assert not store.url.endswith("/")
