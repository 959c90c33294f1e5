"""Lineage of a run: the commit of the manifest's folder, by a real git, and the tags of MLflow's runs."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.manifest.load import load_manifest
from orchestrator.registry.mirror import Author
from orchestrator.train.lineage import find_commit, find_lineage
from ship.backbone import load_backbone
from ship.version import __version__
from tests.factories import write_backbone, write_stripes

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
COMMIT, DIRTY = "mlflow.source.git.commit", "mlflow.source.git.dirty"


def git(folder: Path, *command: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *who, *command], check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a committed manifest in a folder of it."""
    folder = tmp_path / "repository"
    (folder / "lines").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "lines" / "lines.yaml").write_text("tasks: []\n")
    (folder / "other").mkdir()
    (folder / "other" / "code.py").write_text("")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


@needs_git
def test_a_clean_checkout_is_told_from_a_changed_one(repository: Path) -> None:
    manifest = repository / "lines" / "lines.yaml"
    commit = git(repository, "rev-parse", "HEAD")
    assert find_commit(manifest) == {COMMIT: commit, DIRTY: "false"}
    (repository / "lines" / "picture.png").write_text("untracked data is no change")
    (repository / "other" / "code.py").write_text("another folder")
    assert find_commit(manifest)[DIRTY] == "false"
    manifest.write_text("tasks: [a]\n")
    assert find_commit(manifest) == {COMMIT: commit, DIRTY: "true"}


@needs_git
def test_a_manifest_that_is_not_committed_counts_as_a_change(repository: Path) -> None:
    for name, ignored in (("new.yaml", ""), ("ignored.yaml", "ignored.yaml")):
        (repository / ".git" / "info" / "exclude").write_text(ignored)
        (repository / "lines" / name).write_text("tasks: []\n")
        assert find_commit(repository / "lines" / name)[DIRTY] == "true"


@needs_git
def test_a_folder_without_a_commit_has_none(repository: Path, tmp_path: Path) -> None:
    assert find_commit(tmp_path / "lines.yaml") == {}
    assert find_commit(tmp_path / "nowhere" / "lines.yaml") == {}
    git(tmp_path, "init", "-q", "empty")
    assert find_commit(tmp_path / "empty" / "lines.yaml") == {}


@needs_git
def test_another_repository_of_the_environment_is_not_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    assert find_commit(tmp_path / "lines.yaml") == {}


@needs_git
def test_nothing_of_the_repository_is_run_or_written(repository: Path, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    # Of the same content, but other times: git would write down that it is the same.
    manifest = repository / "lines" / "lines.yaml"
    manifest.write_text("tasks: []\n")
    before = (repository / ".git" / "index").read_bytes()
    assert find_commit(manifest)[DIRTY] == "false"
    assert not (tmp_path / "ran").exists()
    assert (repository / ".git" / "index").read_bytes() == before


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit(tmp_path / "lines.yaml") == {}


def test_a_git_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit(tmp_path / "lines.yaml", patience_s=0.1) == {}


def test_a_run_tells_its_backbone_package_manifest_and_user(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone")
    write_stripes(tmp_path / "a")
    path = tmp_path / "lines.yaml"
    path.write_text("backbone: ./backbone\ntasks: [{name: a, data: a}]\n")
    backbone = load_backbone(str(tmp_path / "backbone"))
    author = Author(by="anna", host="line-pc")
    tags: dict[str, Any] = find_lineage("tune-1", str(path), load_manifest(str(path)), backbone, author)
    expected = {
        "ship.run": "tune-1",
        "ship.version": __version__,
        "ship.host": "line-pc",
        "ship.backbone": backbone.info.name,
        "ship.backbone_fingerprint": backbone.fingerprint,
        "ship.manifest_digest": hashlib.sha256(path.read_bytes()).hexdigest(),
        "mlflow.user": "anna",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": str(path),
    }
    assert {name: tags[name] for name in expected} == expected


def test_a_manifest_at_a_url_has_no_commit_and_shows_no_password(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone")
    write_stripes(tmp_path / "a")
    path = tmp_path / "lines.yaml"
    path.write_text("backbone: ./backbone\ntasks: [{name: a, data: a}]\n")
    url = "https://anna:very-secret@plant/lines.yaml"
    tags = find_lineage("r", url, load_manifest(str(path)), load_backbone(str(tmp_path / "backbone")))
    assert "very-secret" not in str(tags)
    assert COMMIT not in tags
