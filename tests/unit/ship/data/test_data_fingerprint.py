import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from ship.data import DataSource, describe_data, fingerprint_data
from ship.errors import DataError


def fingerprint(path: Path, **options: object) -> str:
    return fingerprint_data(DataSource(path=str(path), **options))


def test_same_wherever_and_whenever(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(tree)
    assert len(first) == 64
    copy = shutil.copytree(tree, tmp_path / "deep" / "copy")
    os.utime(copy / "ok" / "0.png", (1, 1))
    (copy / ".DS_Store").write_text("x")
    monkeypatch.chdir(copy.parent)

    assert fingerprint(copy) == first
    assert fingerprint(Path("copy")) == first
    assert fingerprint(copy, format="imagefolder") == first
    assert fingerprint_data(DataSource(path=copy.as_uri())) == first


def test_changes_with_an_image(tree: Path, write_image: Callable[..., Path]) -> None:
    first = fingerprint(tree)
    write_image(tree / "ok" / "0.png", seed=999)
    changed = fingerprint(tree)
    write_image(tree / "ok" / "new.png")

    assert len({first, changed, fingerprint(tree)}) == 3


def test_changes_with_a_label(tree: Path) -> None:
    first = fingerprint(tree)
    (tree / "ok").rename(tree / "fine")

    assert fingerprint(tree) != first


@pytest.mark.parametrize("option", [{"test_fraction": 0.3}, {"val_fraction": 0.1}, {"split_seed": 1}])
def test_changes_with_each_split_option(tree: Path, option: dict[str, object]) -> None:
    assert fingerprint(tree, **option) != fingerprint(tree)


def test_csv_labels_count_and_other_columns_do_not(tree: Path) -> None:
    def csv_fingerprint(*lines: str) -> str:
        (tree / "data.csv").write_text("\n".join(lines))
        return fingerprint(tree / "data.csv")

    first = csv_fingerprint("path,label", "ok/0.png,a", "ok/1.png,a", "ok/2.png,b", "ok/3.png,b")
    same = csv_fingerprint("label,path,x", "b,ok/3.png,1", "a,ok/0.png,1", "a,ok/1.png,1", "b,ok/2.png,1")
    other = csv_fingerprint("path,label", "ok/0.png,b", "ok/1.png,a", "ok/2.png,b", "ok/3.png,a")
    assert first == same
    assert first != other


def test_every_missing_file_is_named(tree: Path) -> None:
    (tree / "data.csv").write_text("path,label\nok/0.png,a\nok/x.png,a\nok/1.png,b\nok/y.png,b\n")

    with pytest.raises(DataError) as caught:
        fingerprint(tree / "data.csv")
    assert caught.value.problems == (
        f"{tree}/ok/x.png: no such file or folder",
        f"{tree}/ok/y.png: no such file or folder",
    )


def test_remote_changes_with_an_image_and_names_missing_ones(tree: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/fingerprint", recursive=True)
    try:
        source = DataSource(path="memory://fingerprint")
        first = fingerprint_data(source)
        assert fingerprint_data(source) == first
        memory.pipe_file("/fingerprint/ok/0.png", b"other content")
        assert fingerprint_data(source) != first

        memory.pipe_file(
            "/fingerprint/data.csv", b"path,label\nok/0.png,a\nok/1.png,a\nok/2.png,b\nno.png,b\n"
        )
        with pytest.raises(DataError, match=r"^memory:///fingerprint/no.png: no such file or folder$"):
            fingerprint_data(DataSource(path="memory://fingerprint/data.csv"))
    finally:
        memory.rm("/fingerprint", recursive=True)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_has_the_data_of_its_folder(tree: Path, tmp_path: Path, kind: str) -> None:
    archive = shutil.make_archive(str(tmp_path / "data"), kind, tree)
    found = describe_data(DataSource(path=f"{kind}://::{archive}"))

    assert (found.labels, found.num_train) == (("ok", "scratch mark ü"), 16)
    assert sum(found.evidence.values()) == 20


class _PlainServer(http.server.SimpleHTTPRequestHandler):
    """Files over HTTP, with times of change or without, and without ETags."""

    tells_times = True

    def send_header(self, keyword: str, value: str) -> None:
        if self.tells_times or keyword != "Last-Modified":
            super().send_header(keyword, value)

    def log_message(self, *_: object) -> None:
        pass


class _SilentServer(_PlainServer):
    tells_times = False


@pytest.fixture(params=[_PlainServer, _SilentServer])
def served(request: pytest.FixtureRequest, tree: Path) -> Iterator[str]:
    """URL of a table of the tree's images on a server of each kind."""
    lines = [f"ok/{number}.png,{'ab'[number % 2]}" for number in range(10)]
    (tree / "t.csv").write_text("\n".join(["path,label", *lines]))
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(request.param, directory=str(tree))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/t.csv"
    server.shutdown()
    server.server_close()


def test_an_image_that_was_replaced_on_a_plain_server_is_noticed(
    served: str, tree: Path, write_image: Callable[..., Path]
) -> None:
    first = describe_data(DataSource(path=served))
    size = (tree / "ok" / "3.png").stat().st_size
    other = (tree / "ok" / "3.png").read_bytes()[:-1] + b"?"
    (tree / "ok" / "3.png").write_bytes(other)
    os.utime(tree / "ok" / "3.png", (1, 1))
    second = describe_data(DataSource(path=served))

    assert (tree / "ok" / "3.png").stat().st_size == size
    assert first.fingerprint != second.fingerprint
    assert first.evidence == second.evidence
    assert set(first.evidence) in ({"time"}, {"content"})
