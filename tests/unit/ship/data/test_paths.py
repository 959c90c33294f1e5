"""Properties of paths: what was joined is cut again, whatever characters it has."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ship.data.folder import find_folders, open_folder
from ship.data.paths import below, common_parent, join, normalise

_NAME = st.text("ab *?[]#%:~ü.'\"", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))
_PATHS = st.lists(_NAME, min_size=1, max_size=4).map("/".join)
_ROOTS = st.one_of(st.just(""), st.just("/"), _PATHS, _PATHS.map(lambda path: f"/{path}"))


@settings(derandomize=True, max_examples=300)
@given(_ROOTS, _PATHS)
def test_what_is_joined_is_cut_again(root: str, path: str) -> None:
    assert below(root, join(root, path)) == path


@settings(derandomize=True, max_examples=200)
@given(_PATHS, _PATHS)
def test_a_root_that_only_begins_alike_is_another(root: str, path: str) -> None:
    assert below(root, f"{root}x/{path}") is None


@settings(derandomize=True, max_examples=300)
@given(st.lists(st.sampled_from(["a", "b c", ".", "..", ""]), max_size=8).map("/".join))
def test_a_normal_path_leads_nowhere_else(path: str) -> None:
    found = normalise(path)
    if found is not None:
        assert not {"", ".", ".."} & set(found.split("/"))
        assert normalise(found) == found


@settings(derandomize=True, max_examples=200)
@given(st.lists(_PATHS.map(lambda path: f"root/{path}/file"), min_size=1, max_size=5))
def test_the_common_parent_is_above_all(paths: list[str]) -> None:
    parent = common_parent(paths)
    assert all(below(parent, path) for path in paths)


@pytest.mark.parametrize("name", ["a [old]", "50%", "a#1", "x::y", "what?", "*", "~x", "a b", "ü", "[ab]"])
def test_a_folder_of_any_name_is_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "line 1").mkdir(parents=True)
    (tmp_path / name / "line 1" / "t.txt").write_text("x")
    (tmp_path / "other" / "line 2").mkdir(parents=True)

    assert open_folder(str(tmp_path / name)).tree().files == {"line 1/t.txt"}
    assert find_folders(str(tmp_path / name)) == [str(tmp_path / name / "line 1")]
