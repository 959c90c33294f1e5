"""A PEFT adapter becomes a version in the registry, passes the gate, and comes out again."""

import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from orchestrator.errors import RegistryError
from orchestrator.registry.exchange import Admission, admit, export_version
from orchestrator.registry.recorder import Recorder
from orchestrator.registry.registry import Registry
from ship.artifact.importing import import_adapter
from ship.artifact.peft import AdapterFiles, adapter_to_prompt, read_folder
from ship.backbone import Backbone
from ship.data import DataSource, load_task_data
from ship.errors import ArtifactError
from tests.console import run_ship
from tests.factories import write_stripes
from tests.integration.place import Place
from tests.unit.ship.artifact.peft_adapter import make_backbone, save_adapter

LABELS = ("direction-0", "direction-1", "direction-2")

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


@pytest.fixture
def frozen(tmp_path: Path) -> Backbone:
    return make_backbone(tmp_path / "tiny")


@pytest.fixture
def adapter(frozen: Backbone, tmp_path: Path) -> AdapterFiles:
    save_adapter(frozen, tmp_path / "adapter", target_modules=["qkv", "fc2"])
    return read_folder(tmp_path / "adapter")


def take_in(place: Place, key: str, files: dict[str, bytes], promote: bool = False) -> Admission:
    return admit(
        "caps",
        key,
        files,
        store=place.store,
        registry=place.registry,
        recorder=place.recorder(),
        promote=promote,
    )


def test_an_import_is_a_version_once_and_comes_out_as_it_was(
    place: Place, frozen: Backbone, adapter: AdapterFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = take_in(place, *import_adapter("caps", frozen, adapter, labels=LABELS))
    again = take_in(place, *import_adapter("caps", frozen, adapter, labels=LABELS))

    assert (first.version.version, first.version.aliases, first.is_new) == (1, ("challenger",), True)
    assert (again.version.version, again.version.aliases, again.is_new) == (1, ("challenger",), False)
    assert first.version.gate_reason == "Its accuracy is not known, so it cannot be judged."
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    run = client.get_run(first.version.run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"imported": "peft"})
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    with pytest.raises(RegistryError, match="no champion; name a version"):
        export_version("caps", None, store=place.store, registry=place.registry)

    promoted = take_in(place, *import_adapter("caps", frozen, adapter, labels=LABELS), promote=True)

    assert promoted.version.aliases == ("champion",)
    number, files = export_version("caps", None, store=place.store, registry=place.registry)
    assert number == 1
    (tmp_path / "out").mkdir()
    for name, content in files.items():
        (tmp_path / "out" / name).write_bytes(content)
    before, after = (
        adapter_to_prompt(adapter, frozen),
        adapter_to_prompt(read_folder(tmp_path / "out"), frozen),
    )
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name


def test_the_gate_judges_an_import_that_was_measured(
    place: Place, frozen: Backbone, adapter: AdapterFiles, tmp_path: Path
) -> None:
    write_stripes(tmp_path / "stripes", num_classes=3)
    source = DataSource(path=str(tmp_path / "stripes"), test_fraction=0.0)
    data = load_task_data(source, image_size=frozen.image_size, interpolation=frozen.interpolation)

    measured = take_in(place, *import_adapter("caps", frozen, adapter, data=data))

    assert measured.version.aliases == ("challenger",)
    assert "is not told from guessing" in measured.version.gate_reason
    client = MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
    figures = {file.path for file in client.list_artifacts(measured.version.run_id, "figures")}
    assert figures == {"figures/confusion.svg"}


def test_what_a_registry_that_is_down_did_not_take_waits(
    place: Place, frozen: Backbone, adapter: AdapterFiles, down: Registry
) -> None:
    key, files = import_adapter("caps", frozen, adapter)
    recorder = Recorder(down, place.store, place.folder / "spool")
    with pytest.raises(RegistryError, match="is published, but not registered yet: 1 records wait"):
        admit("caps", key, files, store=place.store, registry=down, recorder=recorder)

    later = place.recorder()
    later.replay()
    later.close()

    assert [info.version for info in place.registry.versions("caps")] == [1]


def test_the_commands(
    place: Place,
    frozen: Backbone,
    adapter: AdapterFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("SHIP_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHIP_HOME", str(place.folder))
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(LABELS))
    write_stripes(tmp_path / "stripes", num_classes=3)
    given = ("--task", "caps", "--backbone", "./tiny", "--labels", "names.txt")

    assert run_ship(monkeypatch, "import", "adapter", *given) == 0
    assert "caps: version 1 is @challenger.\n" in (printed := capsys.readouterr().out)
    assert "Measure it with --data, or serve it as it is: `ship promote caps 1`." in printed

    data = '{"path": "stripes", "format": "imagefolder"}'
    assert run_ship(monkeypatch, "import", "adapter", *given, "--data", data, "--promote", "--json") == 0
    imported = json.loads(capsys.readouterr().out)
    assert (imported["version"], imported["aliases"], imported["is_new"]) == (2, ["champion"], True)
    assert imported["bytes"]["low_rank"] > 0

    assert run_ship(monkeypatch, "show", "caps") == 0
    assert "on the device: head 396 bytes, low rank" in capsys.readouterr().out
    assert run_ship(monkeypatch, "export", "caps", "out", "--format", "peft") == 0
    assert "caps: version 2 is in out" in capsys.readouterr().out
    assert Path("out/labels.txt").read_text().split() == list(LABELS)
    assert run_ship(monkeypatch, "import", "adapter", *given, "--data", "stripes/train") == 2
    assert "no images held out for testing" in capsys.readouterr().err


def test_what_is_no_peft_adapter_is_not_written(place: Place) -> None:
    place.record("bolts")
    with pytest.raises(ArtifactError):
        export_version("bolts", 1, store=place.store, registry=place.registry)
    with pytest.raises(RegistryError, match="no version 7"):
        export_version("bolts", 7, store=place.store, registry=place.registry)
