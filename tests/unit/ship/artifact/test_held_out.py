"""The held-out answers of an artifact: they say what the evaluation says, are bounded, and read strictly."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ship.artifact.evidence import draw_thumbnail, gather_held_out
from ship.artifact.files import load, load_files, save
from ship.artifact.held_out import (
    HELD_OUT,
    MAX_HELD_OUT_BYTES,
    MAX_THUMBNAILS,
    MAX_THUMBNAILS_BYTES,
    HeldOut,
)
from ship.artifact.making import make_artifact
from ship.backbone import Backbone
from ship.data import Split, TaskData
from ship.data.fingerprint import fingerprint_split
from ship.data.pixel_copies import pixel_digest
from ship.errors import ArtifactError
from ship.settings.config import TuneConfig
from ship.settings.view import View
from ship.tuning.run import TuneResult, tune
from tests.unit.ship.factory import QUICK, make_data

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def result(backbone: Backbone, data: TaskData) -> TuneResult:
    return tune(backbone, data, TuneConfig(**QUICK))


@pytest.fixture(scope="module")
def files(backbone: Backbone, data: TaskData, result: TuneResult) -> Files:
    return make_artifact("caps", backbone, data, result)


@pytest.fixture(scope="module")
def found(files: Files) -> HeldOut:
    return HeldOut.from_json(files[HELD_OUT])


def with_held_out(num_images: int, labels: tuple[str, ...] = ("good", "bad"), path: str = "p") -> TaskData:
    """Data of one-pixel pictures, of which many are held out."""
    data = make_data(num_classes=len(labels))
    split = Split(
        images_B3HW=torch.zeros(num_images, 3, 1, 1, dtype=torch.uint8),
        labels_B=torch.arange(num_images) % len(labels),
        paths=tuple(f"{path}{number}" for number in range(num_images)),
    )
    return replace(data, labels=labels, test=split)


def test_answers_are_those_of_the_evaluation(
    found: HeldOut, files: Files, data: TaskData, result: TuneResult
) -> None:
    logits_BC, labels_B = torch.tensor(found.logits_BC), torch.tensor(found.labels_B)
    right = "".join("01"[bool(hit)] for hit in logits_BC.argmax(1) == labels_B)
    record = json.loads(files["record.json"])["held_out"]
    assert right == record["right"] == result.evaluation.right
    probe_right = torch.tensor(found.probe_logits_BC).argmax(1) == labels_B
    assert "".join("01"[bool(hit)] for hit in probe_right) == record["probe_right"]
    torch.testing.assert_close(logits_BC, result.outputs.logits_BC, rtol=1e-5, atol=0)
    assert (found.labels, found.paths, found.num_images) == (data.labels, data.test.paths, 18)
    assert found.digests == tuple(map(pixel_digest, data.test.images_B3HW))
    assert len(set(found.digests)) == 18
    assert found.distances_B is not None
    assert len(found.distances_B) == 18


def test_the_record_tells_held_out_images_apart_without_their_pixels(
    backbone: Backbone, data: TaskData, result: TuneResult, files: Files
) -> None:
    assert data.test is not None
    assert json.loads(files["record.json"])["held_out"]["fingerprint"] is None, "their files are not known"
    contents = tuple(f"{number:064x}" for number in range(len(data.test)))
    known = replace(data, test=replace(data.test, contents=contents))
    record = json.loads(make_artifact("caps", backbone, known, result)["record.json"])
    assert record["held_out"]["fingerprint"] == fingerprint_split(known.labels, known.held_out)
    assert len(set(record["held_out"]["images"])) == len(data.test)


def test_written_and_read_again_is_the_same(found: HeldOut, files: Files) -> None:
    assert found.to_json() == files[HELD_OUT]


def test_the_card_names_the_file_and_serving_does_without(files: Files, tmp_path: Path) -> None:
    without = {name: content for name, content in files.items() if name != HELD_OUT}
    assert HELD_OUT in load_files(without).card.files
    save(tmp_path / "caps", without)
    assert load(tmp_path / "caps").digest == load_files(files).digest


def test_another_file_in_its_place_is_refused(files: Files, tmp_path: Path) -> None:
    changed = {**files, HELD_OUT: files[HELD_OUT].replace(b"0.png", b"1.png")}
    with pytest.raises(ArtifactError, match=r"held_out\.json: size or sha256"):
        load_files(changed)
    save(tmp_path / "caps", changed)
    with pytest.raises(ArtifactError, match=r"held_out\.json: size or sha256"):
        load(tmp_path / "caps")
    card = json.loads(files["prompt.json"])
    del card["files"][HELD_OUT]
    with pytest.raises(ArtifactError, match=r"held_out\.json: size or sha256"):
        load_files({**files, "prompt.json": json.dumps(card).encode()})


def test_an_interrupted_tuning_leaves_the_same_answers(backbone: Backbone, data: TaskData) -> None:
    snapshots: list[bytes] = []
    config = TuneConfig(**QUICK)
    whole = tune(backbone, data, config, on_snapshot=snapshots.append, snapshot_every=2)
    resumed = tune(backbone, data, config, resume=snapshots[0])
    first, second = (make_artifact("caps", backbone, data, result)[HELD_OUT] for result in (whole, resumed))
    assert first == second


def test_of_more_images_than_fit_evenly_spaced_ones_are_kept() -> None:
    data = with_held_out(40_000, path="long/" * 60)
    logits_BC = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0))
    found = gather_held_out(data, logits_BC, logits_BC)
    assert found is not None
    content = found.to_json()
    assert MAX_HELD_OUT_BYTES / 2 < len(content) <= MAX_HELD_OUT_BYTES
    assert found.num_images == 40_000 > len(found) > 10_000
    places = [int(path.removeprefix("long/" * 60)) for path in found.paths]
    assert places[0] == 0
    assert {b - a for a, b in pairwise(places)} <= {1, 2, 3, 4}
    kept = logits_BC[places]
    torch.testing.assert_close(torch.tensor(found.logits_BC), kept, rtol=1e-5, atol=0)
    assert found.labels_B == tuple(data.test.labels_B[places].tolist())


def test_a_probe_without_finite_scores_is_left_out() -> None:
    scores = torch.zeros(4, 2)
    found = gather_held_out(with_held_out(4), scores, torch.tensor([[float("nan"), 0.0]] * 4))
    assert found is not None
    assert found.probe_logits_BC is None
    assert HeldOut.from_json(found.to_json()).logits_BC == ((0.0, 0.0),) * 4


def test_class_names_that_leave_no_room_leave_no_file() -> None:
    data = with_held_out(4, labels=("a" * MAX_HELD_OUT_BYTES, "b", "c"))
    assert gather_held_out(data, torch.zeros(4, 3)) is None


def test_thumbnails_show_the_worst_mistakes_then_the_narrowest_answers() -> None:
    labels = ("bad", "good", "scratch")
    data = with_held_out(300, labels=labels)
    noise = torch.randint(0, 256, (300, 3, 200, 100), generator=torch.Generator().manual_seed(0))
    data = replace(data, test=replace(data.test, images_B3HW=noise.to(torch.uint8)))
    logits_BC = torch.nn.functional.one_hot(data.test.labels_B, 3).float()
    # Of these the first is surest, but the second lets a defect pass.
    logits_BC[1] = torch.tensor([9.0, 0.0, 0.0])
    logits_BC[2] = torch.tensor([0.0, 2.0, 0.0])
    logits_BC[3] = torch.tensor([0.51, 0.5, 0.0])
    found = gather_held_out(data, logits_BC)
    assert found is not None
    assert list(found.thumbnails)[:3] == [2, 1, 3]
    assert len(found.thumbnails) == 18
    assert sum(map(len, found.thumbnails.values())) <= MAX_THUMBNAILS_BYTES
    for jpeg in found.thumbnails.values():
        picture = Image.open(io.BytesIO(jpeg))
        assert (picture.format, picture.size) == ("JPEG", (48, 96))
    assert HeldOut.from_json(found.to_json()).thumbnails == dict(found.thumbnails)
    all_wrong = gather_held_out(data, -logits_BC)
    assert all_wrong is not None
    assert len(all_wrong.thumbnails) == MAX_THUMBNAILS


def test_without_thumbnails_no_pixel_leaves(backbone: Backbone, data: TaskData, result: TuneResult) -> None:
    files = make_artifact("caps", backbone, data, result, thumbnails=False)
    assert json.loads(files[HELD_OUT])["thumbnails"] == {}
    assert HeldOut.from_json(files[HELD_OUT]).paths == data.test.paths


def test_tiles_are_put_together_row_by_row() -> None:
    shades = torch.tensor([0, 60, 120, 180, 240, 255], dtype=torch.uint8)
    tiles_T3HW = shades.view(6, 1, 1, 1).expand(6, 3, 32, 32)
    picture = Image.open(io.BytesIO(draw_thumbnail(tiles_T3HW, View(tiles="2x3"))))
    assert picture.size == (96, 64)
    found = [picture.getpixel((x, y))[0] for y in (16, 48) for x in (16, 48, 80)]
    assert found == pytest.approx([0, 60, 120, 180, 240, 255], abs=4)


def test_names_that_are_not_utf_8_come_back(found: HeldOut) -> None:
    odd = replace(found, paths=("caf\udce9.png", "a\nb\x1b[31m.png", *found.paths[2:]))
    assert HeldOut.from_json(odd.to_json()).paths == odd.paths


def deeper(values: dict[str, Any]) -> None:
    values["logits_BC"] = [values["logits_BC"]]


def put(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda values: values.__setitem__(key, value)


def jpegs(number: int, size: int) -> dict[str, str]:
    text = base64.b64encode(b"\xff\xd8\xff" + b"x" * size).decode()
    return {str(place): text for place in range(number)}


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another schema": (put("schema", 2), "schema: expected 1"),
    "a schema that is no number": (put("schema", True), "schema: expected 1"),
    "unknown key": (put("more", 1), "unknown key 'more'"),
    "missing key": (lambda values: values.pop("paths"), "missing key 'paths'"),
    "no labels": (put("labels", []), "labels: expected"),
    "a label twice": (put("labels", ["a", "a", "b"]), "labels: expected"),
    "half a character in a label": (put("labels", ["a", "\ud800", "b"]), "labels: expected"),
    "paths that are no list": (put("paths", "0123456789abcdefgh"), "paths: expected"),
    "an endless path": (lambda values: values["paths"].__setitem__(0, "p" * 70_000), "paths: expected"),
    "too few digests": (lambda values: values["digests"].pop(), "digests: expected 18"),
    "a label outside": (lambda values: values["labels_B"].__setitem__(0, 3), "labels_B: expected"),
    "a label that is true": (lambda values: values["labels_B"].__setitem__(0, True), "labels_B: expected"),
    "a short row": (lambda values: values["logits_BC"][4].pop(), "logits_BC: expected 18 rows of 3"),
    "another shape": (deeper, "logits_BC: expected"),
    "a score that float32 does not hold": (
        lambda values: values["logits_BC"][0].__setitem__(0, 1e300),
        "logits_BC: expected",
    ),
    "a probe of other images": (
        lambda values: values["probe_logits_BC"].pop(),
        "probe_logits_BC: expected",
    ),
    "a distance below 0": (put("distances_B", [-1.0] * 18), "distances_B: expected"),
    "fewer images than are there": (put("num_images", 17), "num_images: expected"),
    "a thumbnail of no image": (put("thumbnails", {"18": "/9j/"}), "thumbnails: expected"),
    "a thumbnail at no place": (put("thumbnails", {"-1": "/9j/"}), "thumbnails: expected"),
    "a thumbnail that is no JPEG": (put("thumbnails", {"1": "PHN2Zz4="}), "thumbnails: expected"),
    "a thumbnail that is no base64": (put("thumbnails", {"1": "/9j/*"}), "thumbnails: expected"),
    "thumbnails without end": (put("thumbnails", jpegs(18, 30_000)), "thumbnails: expected"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_else_is_refused(files: Files, name: str) -> None:
    change, message = HOSTILE[name]
    values = json.loads(files[HELD_OUT])
    change(values)
    with pytest.raises(ArtifactError, match=f"held_out.json: {message}"):
        HeldOut.from_json(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" " * (MAX_HELD_OUT_BYTES + 1), "bytes, expected at most"),
        (b"[" * 100_000, "expected a JSON object"),
        (b'{"schema": NaN}', "is no number"),
        (b'{"schema": 1, "schema": 1}', "stands twice"),
        (b"[]", "expected a JSON object"),
    ],
)
def test_what_is_no_such_json_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        HeldOut.from_json(content)
