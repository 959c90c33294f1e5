import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from ship.data import DataSource, TaskData, fingerprint_data, load_task_data
from ship.data.folder import Folder
from ship.data.pixel_copies import find_leaked
from ship.errors import DataError
from ship.images import decode_image


def load(path: str | Path, **options: object) -> TaskData:
    return load_task_data(
        DataSource(path=str(path), **options), image_size=(4, 5), interpolation="bicubic", num_threads=3
    )


def test_images_labels_and_paths_belong_together(split_tree: Path) -> None:
    data = load(split_tree)

    assert data.labels == ("cat", "dog")
    assert data.val is None
    assert data.test is not None
    assert data.held_out is data.test
    assert data.train.images_B3HW.shape == (6, 3, 4, 5)
    assert data.train.images_B3HW.dtype == torch.uint8
    assert data.train.labels_B.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.labels_B.dtype == torch.int64
    assert len(data.test) == 4
    for split in (data.train, data.test):
        for image, path in zip(split.images_B3HW, split.paths, strict=True):
            assert torch.equal(image, decode_image((split_tree / path).read_bytes(), size=(4, 5)))


def test_fingerprint_is_that_of_the_source(tree: Path) -> None:
    assert load(tree).fingerprint == fingerprint_data(DataSource(path=str(tree)))


def test_validation_is_held_out_where_there_is_no_test(split_tree: Path) -> None:
    (split_tree / "test").rename(split_tree / "valid")

    data = load(split_tree)
    assert data.test is None
    assert data.held_out is data.val


def test_nothing_held_out_is_refused(split_tree: Path) -> None:
    data = load(split_tree)
    with pytest.raises(DataError, match="no images held out"):
        TaskData(labels=data.labels, train=data.train, val=None, test=None, fingerprint="")


def test_held_out_images_that_are_trained_on_in_another_format_are_left_out(split_tree: Path) -> None:
    taught = sorted(split_tree.glob("train/*/*.png"))
    for number, path in enumerate(taught[:2]):
        with Image.open(path) as image:
            image.save(split_tree / "test" / "cat" / f"copy-{number}.bmp")
    whole = load(split_tree, allow_duplicates=True)
    data = load(split_tree)
    assert whole.test is not None
    assert data.test is not None
    assert (len(whole.test), len(data.test)) == (6, 4)
    assert (whole.leaked, data.leaked) == ((), ("test/cat/copy-0.bmp", "test/cat/copy-1.bmp"))
    assert not set(data.leaked) & set(data.test.paths)
    assert len(data.test.images_B3HW) == len(data.test.labels_B) == 4
    assert find_leaked(whole) == list(data.leaked)
    assert find_leaked(data) == []


def test_images_that_choose_settings_are_trained_on_as_well(split_tree: Path) -> None:
    """Once they have chosen; a test image that is one of them says nothing."""
    for split in ("val", "test"):
        (split_tree / split / "cat").mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(7).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(split_tree / "val" / "cat" / "new.png")
    Image.fromarray(pixels).save(split_tree / "test" / "cat" / "again.bmp")
    assert load(split_tree).leaked == ("test/cat/again.bmp",)


def test_nothing_that_is_not_trained_on_is_refused(split_tree: Path) -> None:
    for path in split_tree.glob("test/*/*"):
        path.unlink()
    for label in ("cat", "dog"):
        with Image.open(next(split_tree.glob(f"train/{label}/*.png"))) as image:
            image.save(split_tree / "test" / label / "copy.bmp")
    with pytest.raises(DataError, match=r"all 2 images of test are, as the backbone.*copy\.bmp"):
        load(split_tree)


def test_every_bad_image_is_named_with_its_cause(tree: Path) -> None:
    images = sorted((tree / "ok").iterdir())
    images[0].write_bytes(b"")
    images[1].write_bytes(b"hello there")
    images[2].write_bytes(images[2].read_bytes()[:60])
    images[3].unlink()
    images[3].symlink_to(tree / "gone.png")
    images[4].rename(images[4].with_suffix(".gif"))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(images[4].with_suffix(".gif"))

    with pytest.raises(DataError) as caught:
        load(tree)
    problems = "\n".join(sorted(caught.value.problems))
    assert len(caught.value.problems) == 5
    for image, cause in [
        (images[0], "the file is empty"),
        (images[1], "expected JPEG, PNG, WEBP, BMP, TIFF"),
        (images[2], "broken PNG file"),
        (images[3], "no such file"),
        (images[4].with_suffix(".gif"), "expected JPEG"),
    ]:
        assert f"{image}: {cause}" in problems
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def test_progress_counts_every_image_in_the_callers_thread(split_tree: Path) -> None:
    calls = []

    load_task_data(
        DataSource(path=str(split_tree)),
        image_size=(4, 4),
        interpolation="bilinear",
        on_progress=lambda done, total: calls.append((done, total, threading.current_thread())),
    )
    assert calls == [(number, 10, threading.main_thread()) for number in range(1, 11)]


def test_an_interrupt_ends_the_loading(tree: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        load_task_data(
            DataSource(path=str(tree)), image_size=(4, 4), interpolation="bicubic", on_progress=interrupt
        )
    assert threading.active_count() == before


def test_memory_url_equals_local(tree: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/loading", recursive=True)
    try:
        remote, local = load("memory://loading"), load(tree)
        assert remote.labels == local.labels
        assert remote.train.paths == local.train.paths
        assert torch.equal(remote.train.images_B3HW, local.train.images_B3HW)
        assert remote.fingerprint == fingerprint_data(DataSource(path="memory://loading"))
        memory.pipe_file("/loading/ok/bad.png", b"")
        with pytest.raises(DataError, match=r"^memory:///loading/ok/bad.png: the file is empty"):
            load("memory://loading")
    finally:
        memory.rm("/loading", recursive=True)


@pytest.mark.parametrize("url", ["nosuch://bucket/data", "gs://bucket/data"])
def test_backends_that_are_missing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DataError, match=f"^{url}"):
        load(url)


@pytest.fixture
def csv_of_nasty_images(tmp_path: Path) -> Path:
    """Unusual but sound images, each of which must load."""
    gray16 = Image.fromarray(np.full((5, 5), 40_000, np.uint16))
    palette = Image.new("RGBA", (5, 5), (9, 9, 9, 0)).quantize(4)
    for name, image in [
        ("deep.png", gray16),
        ("palette.png", palette),
        ("cmyk.jpg", Image.new("CMYK", (5, 5))),
        ("bits.bmp", Image.new("1", (5, 5), 1)),
    ]:
        image.save(tmp_path / name)
    rows = ["deep.png,x,train", "palette.png,y,train", "cmyk.jpg,x,test", "bits.bmp,y,test"]
    (tmp_path / "data.csv").write_text("\n".join(["path,label,split", *rows]))
    return tmp_path / "data.csv"


def test_unusual_images_load(csv_of_nasty_images: Path) -> None:
    data = load(csv_of_nasty_images)

    assert data.train.paths == ("deep.png", "palette.png")
    assert data.train.images_B3HW[0].unique().tolist() == [156]
    assert data.held_out.images_B3HW.unique().tolist() == [255]


def test_many_threads_give_the_same_tensors(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for label in ("a", "b"):
        for number in range(40):
            write_image(tmp_path / label / f"{number}.png", seed=number + 100 * (label == "b"))
    source = DataSource(path=str(tmp_path))

    one, many = (
        load_task_data(source, image_size=(6, 6), interpolation="bicubic", num_threads=threads)
        for threads in (1, 8)
    )
    assert torch.equal(one.train.images_B3HW, many.train.images_B3HW)
    assert one.fingerprint == many.fingerprint


def test_bytes_are_read_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, path: reads.append(path) or read(self, path))

    load(tree)
    assert len(reads) == len(set(reads)) == 20
