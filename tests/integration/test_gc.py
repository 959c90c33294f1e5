"""`ship gc` through the console command, with a real MLflow on sqlite."""

import json
import os
import time
from pathlib import Path

import pytest

from orchestrator.store.objects.open import open_objects
from tests.console import run_ship
from tests.integration.place import Place, champions
from tests.unit.orchestrator.store.factory import digest_of, make_artifact, make_key

DAYS_S = 3 * 86400
# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


class Swept:
    """A place with a published artifact, an orphan and a snapshot, all three days old, and the command."""

    def __init__(self, place: Place, patch: pytest.MonkeyPatch) -> None:
        self.place, self._patch = place, patch
        self.store = place.folder / "store"
        patch.setenv("SHIP_STORE", str(self.store))
        patch.setenv("SHIP_HOME", str(place.folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", place.uri)
        place.record("bolts")
        files = make_artifact("orphan")
        objects = open_objects(str(self.store))
        for name, content in files.items():
            objects.put_new(f"artifacts/{digest_of(files)}/{name}", content)
        self.orphan = digest_of(files)
        self.orphan_bytes = sum(map(len, files.values()))
        place.store.snapshots.save("nuts", make_key("nuts"), b"state")
        self.make_older(self.store)

    def make_older(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - DAYS_S,) * 2)

    def files(self) -> list[str]:
        found = (path for path in self.store.rglob("*") if path.is_file() and path.name != ".lock")
        return sorted(map(str, found))

    def run(self, *arguments: str) -> int:
        return run_ship(self._patch, "gc", *arguments)

    def pass_days(self) -> None:
        """Put the marks of earlier runs back by three days."""
        path = self.store / "garbage" / "marked.json"
        said = json.loads(path.read_text())
        for one in said["marked"].values():
            one["marked_s"] -= DAYS_S
        path.write_text(json.dumps(said))


@pytest.fixture
def swept(place: Place, monkeypatch: pytest.MonkeyPatch) -> Swept:
    return Swept(place, monkeypatch)


def test_a_dry_run_lists_and_removes_nothing(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    before = swept.files()

    assert swept.run("--dry-run") == 0

    printed = capsys.readouterr().out
    assert f"artifact {swept.orphan}" in printed
    assert "3d old: no publication" in printed
    assert "snapshot nuts/" in printed
    assert "may go 24.0 h after a run has marked it" in printed
    assert "5 objects" in printed
    assert "nothing was marked or removed" in printed
    assert swept.files() == before


def test_gc_removes_unneeded_objects_and_says_how_much(
    swept: Swept, capsys: pytest.CaptureFixture[str]
) -> None:
    before = swept.files()
    assert swept.run() == 0
    printed = capsys.readouterr().out
    assert "0 objects, 0 bytes removed" in printed
    assert "5 objects" in printed
    assert "are marked; run `ship gc` again in 24.0 h" in printed
    assert set(swept.files()) == {*before, str(swept.store / "garbage" / "marked.json")}
    swept.pass_days()
    assert swept.run("--json", "--marked-for", "1w") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["num_objects"], len(said["left"])) == (0, 2)
    assert all(0 < one["wait_s"] <= 4 * 86400 for one in said["left"])

    assert swept.run("--json") == 0

    said = json.loads(capsys.readouterr().out)
    assert (said["dry_run"], said["num_objects"]) == (False, 5)
    assert said["num_bytes"] == swept.orphan_bytes + len(b"state")
    assert {one["kind"] for one in said["garbage"]} == {"artifact", "snapshot"}
    assert not any(swept.orphan in path or "/snapshots/" in path for path in swept.files())
    digest = champions(swept.place.registry)["bolts"].digest
    assert digest_of(swept.place.store.fetch(digest)) == digest
    assert swept.run() == 0
    assert capsys.readouterr().out == "0 objects, 0 bytes removed.\n"


def test_what_is_younger_than_the_limit_stays(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    before = swept.files()

    assert swept.run("--older-than", "1w") == 0

    assert "0 objects" in capsys.readouterr().out
    assert swept.files() == before


def test_a_registered_version_keeps_its_artifact_without_a_publication(swept: Swept) -> None:
    for path in (swept.store / "published").rglob("*.json"):
        path.unlink()

    assert swept.run() == 0
    swept.pass_days()
    assert swept.run() == 0

    digest = champions(swept.place.registry)["bolts"].digest
    assert digest_of(swept.place.store.fetch(digest)) == digest


@pytest.mark.parametrize("uri", ["sqlite:///{folder}/nowhere/mlflow.db", "http://127.0.0.1:9"])
def test_gc_refuses_without_a_registry_and_makes_none(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(folder=swept.place.folder))
    before = swept.files()

    assert swept.run() == 1

    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert swept.files() == before
    assert not (swept.place.folder / "nowhere").exists()


@pytest.mark.parametrize(
    ("age", "said"), [("1y", "such as 30m"), ("0s", "such as 30m"), ("30m", "at least 1h")]
)
@pytest.mark.parametrize("option", ["--older-than", "--marked-for"])
def test_an_age_that_is_none_or_too_short_is_bad_input(
    swept: Swept, capsys: pytest.CaptureFixture[str], option: str, age: str, said: str
) -> None:
    before = swept.files()

    assert swept.run(option, age) == 2

    assert said in capsys.readouterr().err
    assert swept.files() == before
