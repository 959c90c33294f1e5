"""``ship drift`` and ``ship review``, and what they add to ``ship ls`` and ``ship gc``."""

import json
from pathlib import Path

import pytest
import yaml

from orchestrator.errors import ManifestError, RegistryError
from orchestrator.manifest.load import load_manifest
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.drift import Alarm, DriftEntry, DriftStates
from orchestrator.store.drift import write_drift
from orchestrator.store.kept.pictures import KeptPictures
from ship.evaluation.drift import Observation, Reference
from tests.unit.orchestrator.cli.factory import Shell
from tests.unit.orchestrator.registry.factory import World, make_decided
from tests.unit.orchestrator.store.factory import make_kept

PNG = b"\x89PNG\r\n\x1a\n"


class Plant(Shell):
    """Runs ``ship`` on a world with a task that is served."""

    def __init__(self, folder: Path) -> None:
        super().__init__(World())
        self.folder = folder
        digest = self.world.store.publish("bolts", "1" * 64, make_decided(1, ("good", "bad"))).digest
        entries = {"bolts": CatalogEntry(version=1, digest=digest)}
        self.world.store.write_catalog(Catalog(entries=entries), None)

    def keep(self, content: bytes, answered: str | None = None) -> str:
        kept = make_kept(
            content,
            decision=answered or "unsure",
            because=None if answered else "several",
            probabilities=(("good", 0.6), ("bad", 0.4)),
        )
        KeptPictures(self.world.store.objects).put(kept, content)
        return kept.picture

    def alarm(self) -> None:
        seen = [Observation(label="good", is_unsure=False, confidence=0.9)] * 30
        reference = Reference.of(seen)
        assert isinstance(reference, Reference)
        entry = DriftEntry(
            digest="a" * 64,
            rule=None,
            time_s=6.0,
            num_seen=150,
            evidence=1.2,
            reference=reference,
            recent=reference,
            alarm=Alarm(time_s=5.0, num_seen=120, signals=("distance",)),
        )
        write_drift(self.world.store.objects, DriftStates(tasks={"bolts": entry}), None)


@pytest.fixture
def ship(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def test_an_alarm_is_listed_and_noted(ship: Plant):
    assert "No task is watched yet" in ship("drift")
    ship.world.add_tuned(1)
    with pytest.raises(ManifestError, match="task 'bolts' is not watched for drift"):
        raise ship.run("drift", "bolts").exception or AssertionError
    ship.alarm()
    told = ship.json("drift")["bolts"]
    assert (told["state"], told["alarm"]["signals"], told["num_reference"]) == ("alarm", ["distance"], 30)
    assert "unsure" in ship("drift", "bolts")
    assert ship.run("drift", "bolts", "--acknowledge").exit_code != 0
    noted = ship.json("drift", "bolts", "--acknowledge", "--reason", "a dirty lens", "--as", "anna")["bolts"]
    assert (noted["state"], noted["acknowledged"]["by"]) == ("acknowledged", "anna")
    assert ship.json("audit", "bolts")[0]["action"] == "drift-ack"


@pytest.mark.parametrize("command", [("drift",), ("review", "ls"), ("review", "export")])
def test_a_task_that_is_not_registered_is_told_as_such(ship: Plant, tmp_path: Path, command: tuple[str, ...]):
    with pytest.raises(RegistryError, match="no task 'blots' in the registry"):
        raise ship.run(*command, "blots").exception or AssertionError


def test_pictures_are_listed_labelled_and_written(ship: Plant, tmp_path: Path):
    first, second = ship.keep(PNG + b"1"), ship.keep(PNG + b"2", "good")
    assert ship.json("review", "ls", "bolts")["counts"]["open"] == 2
    assert f"{first[:12]}: settled: bad" in ship("review", "label", "bolts", first[:8], "bad")
    assert "needs a second person" in ship("review", "label", "bolts", second, "bad", "--as", "anna")
    ship("review", "label", "bolts", second, "bad", "--as", "ben")
    assert "open" in ship("review", "undo", "bolts", first)
    told = ship.json("review", "export", "bolts", "-o", str(tmp_path))
    assert (told["num_pictures"], told["num_known"]) == (1, 0)
    assert f"pictures/{second}.png,bad,anna; ben,1" in (tmp_path / "labels.csv").read_text()
    for wrong in ("", "zz"):
        assert isinstance(ship.run("review", "label", "bolts", wrong, "bad").exception, ManifestError)


def test_label_studio_goes_there_and_back(ship: Plant, tmp_path: Path):
    picture = ship.keep(PNG)
    ship("review", "export", "bolts", "--format", "label-studio", "-o", str(tmp_path))
    file = tmp_path / "label-studio.json"
    tasks = json.loads(file.read_text())
    choice = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["bad"]}}
    tasks[0]["annotations"] = [{"completed_by": 4, "result": [choice]}]
    file.write_text(json.dumps(tasks))
    assert ship.json("review", "import", "bolts", str(file))["num_labels"] == 1
    [shown] = ship.json("review", "ls", "bolts", "--state", "settled")["pictures"]
    assert (shown["picture"], shown["opinions"][0]["by"]) == (picture, "label-studio:4")


def test_a_manifest_of_the_task_alone_with_the_labels_in_it(ship: Plant, tmp_path: Path):
    for split in ("train", "test"):
        for label in ("good", "bad"):
            path = tmp_path / "data" / split / label / "a.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(PNG + split.encode() + label.encode())
    manifest = tmp_path / "lines.yaml"
    manifest.write_text(
        "backbone: bundled\ndefaults: {epochs: 3, data: {val_fraction: 0.1}}\ntasks:\n"
        "  - {name: bolts, data: data, tags: {line: a}}\n  - {name: nuts, data: data}\n"
    )
    picture = ship.keep(PNG + b"new")
    told = ("review", "retune", "bolts", "-m", str(manifest), "-o", str(tmp_path / "more"), "--dry-run")
    assert "no picture with a settled label" in str(ship.run(*told).exception)
    ship("review", "label", "bolts", picture, "bad")
    assert "retune.yaml" in ship(*told)
    part = tmp_path / "more" / "retune.yaml"
    [task] = load_manifest(str(part)).tasks
    [before] = [one for one in load_manifest(str(manifest)).tasks if one.name == "bolts"]
    assert (task.name, task.config, task.tags) == ("bolts", before.config, before.tags)
    assert task.source.path == before.source.path
    assert task.source.val_fraction == 0.1
    assert task.source.more == str(tmp_path / "more" / "labels.csv")
    assert "nuts" not in str(yaml.safe_load(part.read_text()))
    assert part.stat().st_mode & 0o077 == 0


def test_a_second_export_takes_over_the_first_and_says_so(ship: Plant, tmp_path: Path):
    first, second = ship.keep(PNG + b"1"), ship.keep(PNG + b"2")
    for picture in (first, second):
        ship("review", "label", "bolts", picture, "bad")
    told = ("review", "export", "bolts", "-o", str(tmp_path / "more"))
    assert "2 pictures in" in ship(*told)
    KeptPictures(ship.world.store.objects).drop("bolts", first)
    ship("review", "undo", "bolts", second)
    ship("review", "label", "bolts", ship.keep(PNG + b"3"), "good")
    found = ship.json(*told)
    assert (found["num_pictures"], found["num_earlier"], found["num_taken_back"]) == (2, 1, 1)
    assert "2 of them from before" in ship(*told)
