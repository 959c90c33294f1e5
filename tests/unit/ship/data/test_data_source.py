import json

import pytest

from ship.data import DataSource
from ship.errors import ConfigError


def test_round_trip() -> None:
    source = DataSource(
        path="s3://bucket/data.csv", format="csv", image_root="s3://bucket/images", split_seed=3
    )

    assert DataSource.from_dict(source.to_dict()) == source


def test_every_problem_is_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        DataSource.from_dict(
            {"path": " ", "format": "zip", "val_fraction": 1.0, "test_fraction": True, "split_seed": -1}
        )

    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "path",
        "val_fraction",
        "test_fraction",
        "format",
        "split_seed",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": "x", "folder": "y"}, "folder: unknown setting; known are path, format"),
        ({}, "path: missing"),
        ({"path": "x", "val_fraction": 0.5, "test_fraction": 0.5}, "expected less than 1"),
        ({"path": "x", "val_fraction": float("nan")}, "val_fraction: expected a number"),
        ({"path": "x", "format": "vtab", "image_root": "y"}, "image_root: only for csv, parquet, jsonl"),
        ({"path": "x\0y"}, "path: expected a folder"),
    ],
)
def test_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataSource.from_dict(values)


def test_a_record_of_the_settings_shows_no_secret_and_is_read_back() -> None:
    source = DataSource(
        path="s3://key:hush@plant/caps.csv", image_root="https://anna:hush@plant/caps", test_fraction=0.3
    )
    said = source.to_public_dict()
    assert "hush" not in json.dumps(said)
    assert DataSource.from_dict(said).test_fraction == 0.3
    plain = DataSource(path="caps", format="mvtec", split_seed=4, group="([a-z]+)-")
    assert DataSource.from_dict(json.loads(json.dumps(plain.to_public_dict()))) == plain
