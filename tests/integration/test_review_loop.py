"""Labels that persons give to kept pictures make a version that no longer makes the mistakes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.cli.output import EXIT_WAITING
from orchestrator.registry.comparison import compare_versions
from orchestrator.registry.evidence import Evidence
from orchestrator.serve.engine_api import Answer
from orchestrator.serve.ingress.keeping import Keeper
from orchestrator.serve.keep_rules import read_rules
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.kept.pictures import KeepLimits, KeptPictures
from orchestrator.store.kept.reviewed_table import merge_rows, write_table
from orchestrator.store.kept.reviews import Reviews
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.files import LoadedPrompt, load_files
from ship.artifact.held_out import HELD_OUT, HeldOut
from ship.artifact.making import make_artifact
from ship.backbone import Backbone, as_rows, load_backbone
from ship.data import DataSource, load_task_data
from ship.data.fingerprint import file_digests
from ship.images import decode_image
from ship.runtime.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.integration.plant import make_plant
from tests.unit.orchestrator.store.factory import make_kept

# Takes no step of tuning: what labels do is the same, and it takes seconds.
CONFIG = TuneConfig(kind="probe", precision="float32")


def draw(digit: int, first: int, number: int) -> list[bytes]:
    """Pictures of a handwritten digit as PNG files."""
    digits = load_digits()
    places = np.flatnonzero(digits.target == digit)[first : first + number]
    found = []
    for place in places:
        content = io.BytesIO()
        picture = Image.fromarray((digits.images[place] * 15).astype(np.uint8)).resize((64, 64))
        picture.convert("RGB").save(content, "PNG")
        found.append(content.getvalue())
    return found


def write(folder: Path, contents: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents, start=len(list(folder.iterdir()))):
        (folder / f"{number:03}.png").write_bytes(content)


def publish(store: PromptStore, backbone: Backbone, source: DataSource, key: str) -> tuple[LoadedPrompt, str]:
    info = backbone.info
    data = load_task_data(source, image_size=info.image_size, interpolation=info.interpolation)
    files = make_artifact("parts", backbone, data, tune(backbone, data, CONFIG), thumbnails=False)
    return load_files(files), store.publish("parts", key * 64, files).digest


def answer(backbone: Backbone, loaded: LoadedPrompt, digest: str, contents: list[bytes]) -> list[Answer]:
    """What an engine answers."""
    info, runtime = backbone.info, Runtime(backbone, capacity_bytes=64 << 20)
    images = torch.stack(
        [decode_image(one, size=info.image_size, interpolation=info.interpolation) for one in contents]
    )
    slot, labels = runtime.insert(loaded.prompt), loaded.card.labels
    found = []
    for row in runtime.infer_rows(as_rows(images), [slot] * len(images)):
        logits = row.logits_C.tolist()
        decided = loaded.card.decision.decide(labels, logits)
        ranked = sorted(zip(labels, decided.probabilities, strict=True), key=lambda pair: -pair[1])
        found.append(
            Answer(
                task="parts",
                version=1,
                digest=digest,
                probabilities=tuple(ranked),
                decision=decided.label,
                because=decided.because,
                batch_rows=1,
                batch_tasks=1,
            )
        )
    return found


@pytest.mark.slow
def test_labels_given_in_review_make_a_version_without_the_planted_mistakes(tmp_path: Path):
    """Bad parts look like a 3 or like a 5, and the task was tuned with 3 alone: 5 passes as good."""
    backbone, data = load_backbone("bundled"), tmp_path / "data"
    write(data / "train" / "good", draw(8, 0, 40) + draw(9, 0, 40))
    write(data / "train" / "bad", draw(3, 0, 40))
    write(data / "test" / "good", draw(8, 40, 20) + draw(9, 40, 20))
    write(data / "test" / "bad", draw(3, 40, 20))
    store = PromptStore(open_objects(str(tmp_path / "store")))
    source = DataSource(path=str(data))
    first, digest = publish(store, backbone, source, "1")
    store.write_catalog(Catalog(entries={"parts": CatalogEntry(version=1, digest=digest)}), None)
    served, fresh = draw(5, 0, 60), draw(5, 60, 60)

    reviews = Reviews(store)
    keeper = Keeper(reviews.kept, read_rules(["unsure,sample=1"]), KeepLimits())
    for content, found in zip(served, answer(backbone, first, digest, served), strict=True):
        keeper.offer(found, content)
        keeper.step()
    for name in ("anna", "ben"):
        labels = {one.kept.picture: "bad" for one in reviews.pictures("parts")}
        reviews.label("parts", labels, Author(by=name, host="press"))
    table = merge_rows(reviews.pictures("parts"), known=file_digests(source))
    exported = write_table(reviews.kept, "parts", table, tmp_path / "more")
    assert exported.num_pictures == len(served)
    both = DataSource(path=str(data), more=str(exported.path))
    second, digest = publish(store, backbone, both, "2")

    def num_escaped(loaded: LoadedPrompt) -> int:
        return sum(one.probabilities[0][0] == "good" for one in answer(backbone, loaded, digest, fresh))

    before, after = num_escaped(first), num_escaped(second)
    assert before >= 12
    assert after <= before / 4
    evidence = [
        Evidence(
            version=number,
            digest=key * 64,
            card=loaded.card,
            rule=loaded.card.decision,
            answers=store_answers(store, key),
        )
        for number, (loaded, key) in enumerate(((first, "1"), (second, "2")), start=1)
    ]
    compared = compare_versions("parts", *evidence)
    # The same pictures of both, although the data of the second are more.
    assert compared["num_images"] == 60
    assert compared["num_broken"] <= 3


@pytest.mark.slow
def test_one_command_tunes_with_the_labels_and_compares(tmp_path: Path):
    plant = make_plant(tmp_path)
    manifest = str(plant.write_manifest(["line-a"], epochs=5))
    assert plant.ship("tune", manifest).returncode in (0, EXIT_WAITING)
    [card] = plant.ship_json("show", "line-a")["versions"]
    content = next((plant.folder / "line-a" / "train" / "direction-0").iterdir()).read_bytes()
    picture = Image.open(io.BytesIO(content)).rotate(180)
    changed = io.BytesIO()
    picture.save(changed, "PNG")
    kept = make_kept(
        changed.getvalue(),
        task="line-a",
        digest=card["digest"],
        probabilities=(("direction-0", 0.5), ("direction-1", 0.5)),
    )
    KeptPictures(open_objects(str(plant.home / "store"))).put(kept, changed.getvalue())
    # As an endpoint does that serves it.
    assert plant.ship("sync").returncode == 0
    labelled = plant.ship("review", "label", "line-a", kept.picture[:12], "direction-0", "--as", "anna")
    assert "settled: direction-0" in labelled.stdout, labelled.stderr

    retuned = plant.ship("review", "retune", "line-a", "-m", manifest)

    assert retuned.returncode in (0, EXIT_WAITING), retuned.stdout + retuned.stderr
    assert "1 tuned" in retuned.stdout
    assert "on the same" in retuned.stdout, "the comparison"
    versions = plant.ship_json("show", "line-a")["versions"]
    assert [one["version"] for one in versions] == [2, 1]


def store_answers(store: PromptStore, key: str) -> HeldOut:
    published = store.published("parts", key * 64)
    assert published is not None
    found = store.fetch_held_out(published.digest)
    assert found is not None, HELD_OUT
    return found
