"""Single pictures: shown only as they were measured; attention and neighbours where they can be computed."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.client import EndpointError
from orchestrator.registry.evidence import read_held_out
from orchestrator.registry.pictures import HeldOutPictures
from orchestrator.registry.runs import DataSet, RunLog
from tests.unit.orchestrator.console.factory import make_console
from tests.unit.orchestrator.console.plant import MISLABELLED, Plant, make_plant
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.store.factory import make_key

URL = "/tasks/caps/picture"
FIRST = "test/good/0.png"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture
def original(plant: Plant) -> Iterator[Path]:
    """The first held-out picture, which a test may change."""
    path = plant.data / FIRST
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


class Endpoint:
    """An endpoint that draws one map, or refuses."""

    def __init__(self, refusal: str = "") -> None:
        self.asked: list[tuple[str, bytes, int | None]] = []
        self._refusal = refusal

    def explain(self, task: str, image: bytes, *, version: int | None = None) -> bytes:
        self.asked.append((task, image, version))
        if self._refusal:
            raise EndpointError(self._refusal, 503)
        return b"\x89PNG drawn"


def test_a_picture_is_told_with_its_planted_label(plant: Plant) -> None:
    browser = plant.browser()
    found = browser.get(f"{URL}.json?place={MISLABELLED[0]}&version=2").json()
    assert (found["path"], found["label"], found["state"], found["version"]) == (FIRST, "scratch", "same", 2)
    assert found["probabilities"][0]["label"] == found["answer"]
    assert sum(one["probability"] for one in found["probabilities"]) == pytest.approx(1.0)
    assert browser.get(f"{URL}?place=0").status_code == 200
    assert browser.get(f"{URL}.json?place=99").status_code == 409
    for query in ("place=-1", "place=test/good/0.png", "place=0&version=x"):
        assert browser.get(f"{URL}.jpg?{query}").status_code == 422


def test_a_thumbnail_is_drawn_anew_and_never_the_file(plant: Plant, original: Path) -> None:
    reply = plant.browser().get(f"{URL}.jpg?place=0&version=1")
    assert (reply.headers["content-type"], reply.headers["ship-picture"]) == ("image/jpeg", "same")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.content != original.read_bytes()
    with Image.open(io.BytesIO(reply.content)) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))


def test_a_picture_that_was_changed_is_not_shown(plant: Plant, original: Path) -> None:
    browser = plant.browser()
    kept = browser.get(f"{URL}.json?place=0&version=1").json()["has_thumbnail"]
    Image.new("RGB", (32, 32), "red").save(original)
    found = browser.get(f"{URL}.json?place=0&version=1").json()
    assert (found["state"], found["has_thumbnail"]) == ("changed", kept)
    assert "another picture than the one that was measured" in found["detail"]
    reply = browser.get(f"{URL}.jpg?place=0&version=1")
    assert reply.headers["ship-picture"] == "changed"
    if reply.headers["content-type"] == "image/jpeg":
        with Image.open(io.BytesIO(reply.content)) as image:
            assert image.convert("RGB").getpixel((16, 16)) != (254, 0, 0)
    original.write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    assert browser.get(f"{URL}.json?place=0&version=1").json()["state"] == "changed"
    assert b"script" not in browser.get(f"{URL}.jpg?place=0&version=1").content


def test_a_picture_that_is_gone_or_too_large_says_so(plant: Plant, original: Path) -> None:
    browser = plant.browser()
    content = original.read_bytes()
    original.unlink()
    found = browser.get(f"{URL}.json?place=0").json()
    assert (found["state"], found["detail"].endswith("no such file or folder")) == ("gone", True)
    assert browser.get(f"{URL}?place=0").status_code == 200
    assert browser.get("/tasks/caps/attention.png?place=0").status_code == 409
    original.write_bytes(content + b"\0" * (64 << 20))
    found = browser.get(f"{URL}.json?place=0").json()
    assert (found["state"], "expected at most" in found["detail"]) == ("gone", True)


def test_as_many_pixels_are_read_as_in_tuning(plant: Plant) -> None:
    evidence = read_held_out(plant.world.store, "caps", plant.world.registry.version("caps", 1))
    services = make_console(world=plant.world).services
    for max_pixels, state in ((32 * 32, "same"), (32 * 32 - 1, "changed")):
        settings = replace(services.settings, max_pixels=max_pixels)
        found = replace(services, settings=settings).look().picture("caps", evidence, 0)
        assert (found.state, "SHIP_MAX_PIXELS" in found.detail) == (state, state == "changed")


def test_no_path_of_an_artifact_leads_out_of_its_data(plant: Plant) -> None:
    info = plant.world.registry.version("caps", 1)
    evidence = read_held_out(plant.world.store, "caps", info)
    outside = plant.root / "secret.png"
    outside.write_bytes((plant.data / FIRST).read_bytes())
    for path in ("../secret.png", str(outside), "test/../../secret.png", "./" + FIRST):
        paths = (path, *evidence.answers.paths[1:])
        hostile = replace(evidence, answers=replace(evidence.answers, paths=paths), digest=make_key(path))
        found = HeldOutPictures(plant.world.registry).read("caps", hostile, 0)
        assert found.state == "gone", path
        assert "leads out of the data" in found.detail


def test_where_the_data_lies_is_not_guessed(plant: Plant) -> None:
    """MLflow names it; what it names is used only if it is the data that the version was tuned on."""
    registry, runs = plant.world.registry, RunLog(plant.world.registry.session)
    run_id = str(registry.version("caps", 1).run_id)
    inputs = plant.world.mlflow.runs[run_id].inputs
    known = list(inputs.dataset_inputs)
    assert (runs.origin(run_id)[0] or DataSet(fingerprint="")).settings["format"] == "auto"
    try:
        for source, profile in (
            ("not json", "{}"),
            ('{"uri": 1}', '{"fingerprint": 2}'),
            ('{"uri": "/etc", "settings": {"format": "odd"}}', known[0].dataset.profile),
            ('{"uri": "/etc"}', '{"fingerprint": "other"}'),
            ("[]", "[]"),
        ):
            inputs.dataset_inputs[:] = [type(known[0])(_dataset(known[0].dataset, source, profile))]
            found = plant.browser().get(f"{URL}.json?place=0&version=1").json()
            assert (found["state"], found["has_thumbnail"]) == ("unknown", True), source
    finally:
        inputs.dataset_inputs[:] = known


def _dataset(known: Any, source: str, profile: str) -> Any:
    return type(known)(known.name, known.digest, known.source_type, source, None, profile)


def test_an_artifact_without_a_run_shows_the_thumbnails_that_it_keeps() -> None:
    world = World()
    world.add_tuned(1)
    browser = make_console(world=world).sign_in()
    reply = browser.get("/tasks/bolts/picture.jpg?place=3")
    assert (reply.headers["content-type"], reply.headers["ship-picture"]) == ("image/svg+xml", "unknown")
    found = browser.get("/tasks/bolts/picture.json?place=3").json()
    assert "is not on record" in found["detail"]


def test_the_endpoint_draws_attention_of_the_version_that_is_looked_at(plant: Plant) -> None:
    endpoint = Endpoint()
    browser = plant.browser(endpoint=endpoint)
    for _ in range(2):
        reply = browser.get("/tasks/caps/attention.png?place=0&version=1")
        assert (reply.content, reply.headers["content-type"]) == (b"\x89PNG drawn", "image/png")
    assert endpoint.asked == [("caps", (plant.data / FIRST).read_bytes(), 1)], "it is kept"
    away = plant.browser(endpoint=Endpoint("no engine answers"))
    reply = away.get("/tasks/caps/attention.png?place=0&version=1")
    assert reply.status_code == 503
    assert "no engine answers" in reply.text


def test_without_leave_nothing_is_computed(plant: Plant) -> None:
    browser = plant.browser()
    found = browser.get(f"{URL}.json?place=0").json()
    assert "--compute" in found["attention_problem"]
    assert browser.get("/tasks/caps/attention.png?place=0").status_code == 409
    assert "--compute" in browser.get("/tasks/caps/nearest.json?place=0").json()["problem"]


def test_attention_and_the_nearest_training_pictures_are_computed_on_demand(plant: Plant) -> None:
    browser = plant.browser(computes=True)
    drawing = browser.get("/tasks/caps/attention.png?place=0")
    with Image.open(io.BytesIO(drawing.content)) as image:
        assert image.format == "PNG"
    found = browser.get("/tasks/caps/nearest.json?place=0").json()
    assert (found["problem"], found["num_looked_at"], found["num_training"]) == (None, 24, 24)
    # Whatever its label says, the picture shows stripes of the first class.
    assert [one["label"] for one in found["nearest"][:3]] == ["good"] * 3
    alike = [one["similarity"] for one in found["nearest"]]
    assert alike == sorted(alike, reverse=True)
    assert all(one["path"].startswith("train/") for one in found["nearest"])
    assert "data:image/jpeg;base64," in browser.get("/tasks/caps/nearest?place=0").text


def test_of_other_data_there_are_no_neighbours(plant: Plant) -> None:
    added = plant.data / "train" / "good" / "later.png"
    added.write_bytes((plant.data / FIRST).read_bytes()[:-1] + b"\0")
    try:
        Image.new("RGB", (32, 32), "blue").save(added)
        found = plant.browser(computes=True).get("/tasks/caps/nearest.json?place=1").json()
    finally:
        added.unlink()
    assert found["nearest"] == []
    assert "not the data that this version was tuned on any more" in found["problem"]


def test_an_artifacts_records_are_shown(plant: Plant) -> None:
    browser = plant.browser()
    found = browser.get("/tasks/caps/about.json?version=1").json()
    assert any("12 held-out images: too few for a claim" in one for one in found["section"]["warnings"])
    assert found["section"]["settings"]["epochs"] == 1
    assert found["levels"]["starts"][0] == 0
    drawing = browser.get("/tasks/caps/affinity.svg?version=1")
    assert (drawing.headers["content-type"], b"<svg" in drawing.content) == ("image/svg+xml", True)
    assert browser.get("/tasks/caps/affinity.svg?version=9").status_code == 404
    page = browser.get("/tasks/caps/about?version=1").text
    assert ('<svg class="curve"' in page) == (found["section"]["learning_curve"] is not None)
    assert "too few for a claim" in page


def test_lineage_names_run_and_data(plant: Plant) -> None:
    lineage = plant.browser().get("/tasks/caps/about.json?version=1").json()["lineage"]
    assert lineage["data"]["source"] == str(plant.data)
    assert lineage["run"] == {"run": "first", "user": "anna"}
    page = plant.browser().get("/tasks/caps/about?version=1").text
    assert "/tasks/caps/affinity.svg?version=1" in page
