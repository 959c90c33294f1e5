"""The fingerprint of held-out images: it follows these and their labels, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from ship.data import DataSource, TaskData, load_task_data
from ship.data.fingerprint import digest_images, fingerprint_split
from ship.settings.view import View
from tests.unit.ship.factory import make_data

Write = Callable[..., Path]


def load(
    path: str | Path, size: tuple[int, int] = (4, 5), view: View | None = None, **options: object
) -> TaskData:
    source = DataSource(path=str(path), **options)
    return load_task_data(source, image_size=size, interpolation="bicubic", view=view or View())


def held_out(data: TaskData) -> str:
    found = fingerprint_split(data.labels, data.held_out)
    assert found is not None
    assert len(found) == 64
    return found


def add_image(root: Path, write_image: Write) -> None:
    write_image(root / "train" / "cat" / "new.png", seed=77)


def correct_label(root: Path, write_image: Write) -> None:
    (root / "train" / "cat" / "1.png").rename(root / "train" / "dog" / "was-cat.png")


def add_class(root: Path, write_image: Write) -> None:
    """In front of the others, whose numbers become others."""
    write_image(root / "train" / "ant" / "0.png", seed=78)


def add_split(root: Path, write_image: Write) -> None:
    write_image(root / "val" / "cat" / "0.png", seed=79)


def correct_held_out_label(root: Path, write_image: Write) -> None:
    (root / "test" / "cat" / "1.png").rename(root / "test" / "dog" / "was-cat.png")


def replace_held_out(root: Path, write_image: Write) -> None:
    write_image(root / "test" / "cat" / "1.png", seed=81)


def add_held_out(root: Path, write_image: Write) -> None:
    write_image(root / "test" / "cat" / "9.png", seed=82)


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        (add_image, True),
        (correct_label, True),
        (add_class, True),
        (add_split, True),
        (correct_held_out_label, False),
        (replace_held_out, False),
        (add_held_out, False),
    ],
)
def test_it_changes_with_a_held_out_image_or_its_label_alone(
    split_tree: Path, write_image: Write, change: Callable[[Path, Write], None], stays: bool
) -> None:
    before = load(split_tree)
    change(split_tree, write_image)
    after = load(split_tree)
    assert after.fingerprint != before.fingerprint
    assert (held_out(after) == held_out(before)) == stays


def test_it_stays_with_a_table_of_further_training_images(
    split_tree: Path, tmp_path: Path, write_image: Write
) -> None:
    write_image(tmp_path / "more" / "a.png", seed=80)
    (tmp_path / "more" / "more.csv").write_text("path,label\na.png,cat\n")
    before, after = load(split_tree), load(split_tree, more=str(tmp_path / "more" / "more.csv"))
    assert len(after.train) == len(before.train) + 1
    assert held_out(after) == held_out(before)


def test_it_stays_with_another_view_and_another_input_size(split_tree: Path) -> None:
    first = held_out(load(split_tree))
    assert held_out(load(split_tree, size=(8, 8))) == first
    assert held_out(load(split_tree, view=View(crop=(0.0, 0.0, 0.5, 0.5)))) == first


def test_a_label_alone_changes_it(tree: Path) -> None:
    def of(*labels: str) -> str:
        splits = ("train", "train", "train", "test", "test")
        told = enumerate(zip(labels, splits, strict=True))
        rows = [f"ok/{number}.png,{label},{split}" for number, (label, split) in told]
        (tree / "t.csv").write_text("\n".join(["path,label,split", *rows]))
        return held_out(load(tree / "t.csv"))

    assert of("a", "b", "b", "a", "b") == of("b", "a", "b", "a", "b")
    assert of("a", "b", "b", "a", "b") != of("a", "b", "b", "b", "a")


def test_remote_images_are_known_by_the_tags_of_their_backend(
    split_tree: Path, tmp_path: Path, write_image: Write
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(split_tree), "/held-out", recursive=True)
    try:
        before = load("memory://held-out")
        memory.pipe_file("/held-out/train/cat/2.png", write_image(tmp_path / "x.png", seed=83).read_bytes())
        after = load("memory://held-out")
        assert after.fingerprint != before.fingerprint
        assert held_out(after) == held_out(before)
    finally:
        memory.rm("/held-out", recursive=True)


def test_most_images_are_known_again_where_an_added_one_moves_the_cut(tree: Path, write_image: Write) -> None:
    for number in range(10, 60):
        write_image(tree / "ok" / f"{number}.png", seed=1000 + number)
    before = load(tree)
    for number in range(60, 70):
        write_image(tree / "ok" / f"{number}.png", seed=1000 + number)
    after = load(tree)
    first, second = (digest_images(data.labels, data.held_out) for data in (before, after))
    assert first is not None
    assert second is not None
    assert (len(first), len(set(first)), {len(one) for one in first}) == (14, 14, {16})
    common = {path for path in before.held_out.paths if path in after.held_out.paths}
    assert first != second
    assert len(set(first) & set(second)) == len(common) > 10


def test_images_whose_contents_are_not_known_have_none() -> None:
    data = make_data()
    assert digest_images(data.labels, data.held_out) is None
    assert fingerprint_split(data.labels, data.held_out) is None


def test_contents_follow_their_images(split_tree: Path) -> None:
    data = load(split_tree)
    train, test = data.train, data.held_out
    assert train.contents is not None
    assert test.contents is not None
    assert train.joined(test).contents == train.contents + test.contents
    assert train.take(train.labels_B == 1).contents == train.contents[3:]
    assert train.joined(replace(test, contents=None)).contents is None
