"""``ship backup`` and ``ship restore`` with a real MLflow, and ``ship doctor`` on what they leave."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from orchestrator.backup.layout import read_manifest
from orchestrator.errors import RegistryError
from orchestrator.registry.copying import RegistryCopy, copy_registry, restore_registry
from orchestrator.registry.registry import Registry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import insert_verified, load_files
from ship.backbone import load_backbone
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from tests.console import run_ship
from tests.integration.place import Place

WRITTEN = Path(__file__).parents[1] / "fixtures" / "written-by-0.1.0"
EXPECTED = json.loads((WRITTEN / "expected.json").read_text())
# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


class Shell:
    """Runs ``ship`` in one home after another."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = patch, capsys
        for name in ("SHIP_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "SHIP_ENDPOINT"):
            patch.delenv(name, raising=False)

    def home(self, folder: Path) -> None:
        self._patch.setenv("SHIP_HOME", str(folder))
        self._patch.setenv("SHIP_CACHE", str(folder / "cache"))

    def __call__(self, *arguments: str, status: int = 0) -> str:
        self._capsys.readouterr()
        found = run_ship(self._patch, *arguments)
        printed = self._capsys.readouterr()
        assert found == status, printed.out + printed.err
        return printed.out + printed.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def ship(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def scores(store: PromptStore, task: str, digest: str) -> np.ndarray:
    """Scores of a task's picture by an artifact of a store."""
    backbone = load_backbone("bundled")
    runtime = Runtime(backbone, capacity_bytes=64 << 20)
    picture = (WRITTEN / f"{task}.png").read_bytes()
    image_3HW = decode_image(picture, size=backbone.image_size, interpolation=backbone.interpolation)
    slot = insert_verified(runtime, load_files(store.fetch(digest), digest))
    return runtime.infer(torch.as_tensor(image_3HW).unsqueeze(0), [slot])[0].numpy()


def test_a_restored_place_is_as_it_was(ship: Shell, tmp_path: Path) -> None:
    before, after, place = tmp_path / "before", tmp_path / "after", tmp_path / "backup"
    before.mkdir()
    shutil.copy(WRITTEN / "mlflow.db", before)
    shutil.copytree(WRITTEN / "store", before / "store")
    ship.home(before)
    ship("sync")
    ship("promote", "bolts", "2", "--reason", "sharper")
    ship("approvals", "--require", "nuts*")
    listed, shown, audited = ship.json("ls"), ship.json("show", "bolts"), ship.json("audit")
    catalog = PromptStore(LocalObjects(before / "store")).read_catalog()[0]

    taken = ship.json("backup", str(place))
    assert (taken["kind"], taken["registry"], taken["damage"]) == ("all", "sqlite", [])
    assert ship.json("backup", str(place))["num_copied"] == 0
    assert ship.json("restore", str(place), "--verify")["problems"] == []

    ship.home(after)
    restored = ship.json("restore", str(place))
    assert restored["num_written"] == restored["num_objects"] == taken["num_objects"]
    assert ship.json("restore", str(place), "--force")["num_written"] == 0

    assert ship.json("ls") == listed
    assert ship.json("show", "bolts") == shown
    assert ship.json("audit") == audited
    assert ship.json("audit", "--verify")["breaks"] == []
    store = PromptStore(LocalObjects(after / "store"))
    assert store.read_catalog()[0] == catalog
    change = ship.json("sync")
    assert (change["is_written"], change["problems"]) == (False, {})
    entry = catalog.entries["bolts"]
    np.testing.assert_allclose(
        scores(store, "bolts", entry.digest), EXPECTED["bolts"][str(entry.version)]["logits"], atol=1e-3
    )
    told = json.loads(ship("doctor", "--json"))
    assert [row for row in told["rows"] if row["state"] == "fail"] == []
    assert "expected an empty store" in ship("restore", str(place), status=1)


def test_a_store_whose_registry_is_not_there_is_not_backed_up_silently(ship: Shell, tmp_path: Path) -> None:
    shutil.copytree(WRITTEN / "store", tmp_path / "home" / "store")
    ship.home(tmp_path / "home")
    assert "there is no MLflow at" in ship("backup", str(tmp_path / "backup"), status=1)
    assert ship.json("backup", str(tmp_path / "backup"), "--store-only")["registry"] is None
    assert read_manifest(LocalObjects(tmp_path / "backup")).registry is None


def without_ids(state: Any) -> Any:
    """What a registry says, without ids and times that MLflow gives."""
    runs = [
        (info["status"], info["start_time"], info["end_time"], data["params"], data["metrics"], curves)
        for info, data, curves in state["runs"]
    ]
    versions = {
        task: [(one.version, one.digest, one.source, one.metrics, one.aliases, one.tags) for one in found]
        for task, found in state["versions"].items()
    }
    tasks = [(one.task, one.aliases, one.previous, one.latest, one.tags) for one in state["tasks"]]
    return sorted(runs, key=repr), versions, tasks


def test_a_registry_of_another_kind_is_copied_by_the_api(
    place: Place, tmp_path: Path, empty_database: Path
) -> None:
    for number, task in enumerate(("bolts", "nuts", "bolts", "bolts")):
        place.record(task, key=f"{number}" * 64, accuracy=0.9 + number / 100)
    MlflowClient(place.uri, place.uri).delete_model_version("ship.bolts", "2")
    source = Registry(place.uri)
    # As of a server: its tracking URI names no file.
    source.session._tracking_uri = type(source.session._tracking_uri)(f"{place.uri}?timeout=5")
    copy = copy_registry(source, place.store)
    assert copy is not None
    assert copy.form == "json"
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other", empty_database)
    # Without a place of their own MLflow would write the files of runs into the folder that this is run in.
    files = (other.folder / "artifacts").as_uri()

    for _ in range(2):
        restore_registry(Registry(other.uri, files, may_create=True), copy)
        other.registry = Registry(other.uri, files)
        assert without_ids(other.state()) == without_ids(place.state())
    assert other.registry.session.find_identity() == place.registry.session.find_identity()
    assert other.registry.versions("bolts")[0].run_id != place.registry.versions("bolts")[0].run_id

    other.record("bolts", key="9" * 64, accuracy=0.5)
    with pytest.raises(RegistryError, match=r"has another version 4 of ship\.bolts"):
        restore_registry(Registry(other.uri, files, may_create=True), copy)


def test_a_file_that_is_there_is_put_aside_only_if_asked(place: Place, tmp_path: Path) -> None:
    place.record("bolts")
    copy = copy_registry(place.registry, place.store)
    assert copy is not None
    file = tmp_path / "new" / "mlflow.db"
    target = Registry(f"sqlite:///{file}", may_create=True)
    restore_registry(target, copy)
    restore_registry(target, copy)
    assert Registry(f"sqlite:///{file}").champion("bolts") == place.registry.champion("bolts")
    file.write_bytes(b"another")
    with pytest.raises(RegistryError, match="expected no registry, there is one"):
        restore_registry(target, copy)
    restore_registry(target, copy, force=True)
    assert (file.parent / "mlflow.db.before-restore").read_bytes() == b"another"
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(RegistryError, match="the backup holds a file of SQLite"):
        restore_registry(Registry("http://127.0.0.1:9"), RegistryCopy(form="sqlite", content=b""))


def test_the_doctor_ends_although_a_store_never_answers(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from orchestrator.cli.main import main; main()"),
                *("doctor", "--json", "--deadline", "2"),
            ],
            env={
                **os.environ,
                "SHIP_HOME": str(tmp_path / "home"),
                "SHIP_STORE": "s3://models/ship",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "very-secret",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 1, done.stderr
    told = {row["check"]: row for row in json.loads(done.stdout)["rows"]}
    assert told["store"]["found"] == "no answer within 2 s"
    assert told["tokens"]["state"] == "skipped"
    assert "endpoint" in told, "the other checks were made"
    assert "very-secret" not in done.stdout + done.stderr
