from pathlib import Path

import pytest

from orchestrator.errors import ManifestError
from orchestrator.settings import Settings
from ship.settings.view import MAX_PIXELS


def test_flags_win_over_the_environment_and_that_over_defaults(tmp_path: Path) -> None:
    home = str(tmp_path)
    bare = Settings.from_env({}, home=home)
    assert (bare.store, bare.cache, bare.cache_bytes) == (
        str(tmp_path / "store"),
        "~/.cache/ship",
        4_000_000_000,
    )
    env = {"SHIP_HOME": "/nowhere", "SHIP_STORE": "s3://a", "SHIP_CACHE": "/scratch", "SHIP_CACHE_GB": "0.5"}
    said = Settings.from_env(env, home=home, store="s3://b")
    assert (said.home, said.store) == (tmp_path, "s3://b")
    assert (said.cache, said.cache_bytes) == ("/scratch", 500_000_000)


def test_the_limit_on_pixels_is_a_setting() -> None:
    assert Settings.from_env({}).max_pixels == MAX_PIXELS
    assert Settings.from_env({"SHIP_MAX_PIXELS": "200000000"}).max_pixels == 200_000_000
    for text in ("much", "0", "-1", "1.5", "1e6", "10000000001", "9" * 5000):
        with pytest.raises(ManifestError, match="SHIP_MAX_PIXELS: expected a number of pixels from 1"):
            Settings.from_env({"SHIP_MAX_PIXELS": text})


@pytest.mark.parametrize("size", ["much", "-1", "nan", "inf"])
def test_a_cache_of_no_size_is_refused(size: str) -> None:
    with pytest.raises(ManifestError, match=r"SHIP_CACHE_GB: expected a number of gigabytes from 0"):
        Settings.from_env({"SHIP_CACHE_GB": size})


def test_a_home_that_is_no_folder_is_named() -> None:
    with pytest.raises(ManifestError, match="home '~nobody-of-that-name/ship'"):
        Settings.from_env({}, home="~nobody-of-that-name/ship")


def test_a_home_that_a_database_url_would_cut_is_refused(tmp_path: Path) -> None:
    """Two homes that differ behind the `?` would share one registry."""
    with pytest.raises(ManifestError, match=r"plant\?1: MLflow's database cannot lie in a folder with"):
        Settings.from_env({}, home=str(tmp_path / "plant?1"))
    found = Settings.from_env({"MLFLOW_TRACKING_URI": "http://mlflow:5000"}, home=str(tmp_path / "plant?1"))
    assert found.home == tmp_path / "plant?1"
