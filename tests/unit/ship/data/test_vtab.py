from pathlib import Path

import pytest

from ship.data import DataSource, list_items
from ship.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    train = [f"images/train800val200/{number:06d}.jpg {number % 4}" for number in range(8)]
    val = [f"images/train800val200/{number:06d}.jpg {number % 4}" for number in range(8, 10)]
    (tmp_path / "train800.txt").write_text("\n".join(train) + "\n")
    (tmp_path / "val200.txt").write_text("\n".join(val) + "\n")
    (tmp_path / "train800val200.txt").write_text("\n".join(train + val) + "\n")
    (tmp_path / "test.txt").write_text("images/test/a b.jpg 5\nimages/test/2.jpg 0\n")
    return tmp_path


def test_all_thousand_train(root: Path) -> None:
    listing = list_items(DataSource(path=str(root)))

    assert listing.format == "vtab"
    assert listing.labels == ("0", "1", "2", "3", "4", "5")
    assert listing.num_of_split == {"train": 10, "test": 2}
    assert [(item.path, item.label) for item in listing.of_split("test")] == [
        ("images/test/2.jpg", "0"),
        ("images/test/a b.jpg", "5"),
    ]


def test_validation_is_the_published_200(root: Path) -> None:
    counts = list_items(DataSource(path=str(root), val_fraction=0.2)).num_of_split

    assert counts == {"train": 8, "val": 2, "test": 2}


def test_without_the_joint_list(root: Path) -> None:
    (root / "train800val200.txt").unlink()

    assert list_items(DataSource(path=str(root))).num_of_split == {"train": 8, "val": 2, "test": 2}


def test_every_problem_is_listed_with_its_line(root: Path) -> None:
    (root / "train800val200.txt").write_text("a.jpg 0\n\nb.jpg\n../c.jpg 1\nd.jpg -1\na.jpg 1\n")
    (root / "test.txt").write_text("a.jpg 0\n")

    with pytest.raises(DataError) as caught:
        list_items(DataSource(path=str(root), format="vtab"))
    train = root / "train800val200.txt"
    assert caught.value.problems == (
        f"{train}: line 1: path 'a.jpg' was already in test.txt line 1",
        f"{train}: line 3: expected `PATH LABEL` with a label from 0, got 'b.jpg'",
        f"{train}: line 4: path '../c.jpg' leads out of {root}",
        f"{train}: line 5: expected `PATH LABEL` with a label from 0, got 'd.jpg -1'",
        f"{train}: line 6: path 'a.jpg' was already in test.txt line 1",
    )


def test_missing_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list_items(DataSource(path=str(tmp_path), format="vtab"))
    assert len(caught.value.problems) == 3
