"""Tampered artifacts through the real loader: refused with a reason, and the old one serves.

Some have digests that no longer fit. In the others an attacker with knowledge of the format has rewritten all
digests, the catalog's included, so that only a deeper check can tell.
"""

import asyncio
import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from orchestrator.serve.engine.forward import Row, answer_rows
from orchestrator.serve.engine_api import Ask
from orchestrator.serve.residency.loader import PromptLoader
from orchestrator.serve.residency.residency import Residency
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import CARD, README, RECORD, TENSORS
from ship.artifact.files import describe_files, digest_of
from ship.backbone import Backbone, load_backbone
from ship.runtime.runtime import Runtime
from tests.factories import write_backbone
from tests.unit.orchestrator.serve.factory import make_artifact, make_labels
from tests.unit.orchestrator.serve.residency.prompt_pool import apply

Files = dict[str, bytes]
NUM_CLASSES = 3


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)


class Plant:
    """A store on disk, and what serves from it."""

    def __init__(self, folder: Path, runtime: Runtime, logged: pytest.LogCaptureFixture) -> None:
        self.folder, self.logged = folder, logged
        self.store = PromptStore(LocalObjects(folder))
        self.runtime = runtime
        self.residency = Residency(PromptLoader(self.store, runtime))

    def put(self, files: Files) -> str:
        """Write an artifact as it is, without a look at it; returns its digest."""
        digest = digest_of(files)
        folder = self.folder / "artifacts" / digest
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return digest

    def serve(self, version: int, digest: str) -> None:
        apply(self.residency, Catalog(entries={"bolts": CatalogEntry(version=version, digest=digest)}))

    def assert_serves(self, version: int, digest: str, seed: int) -> None:
        """Check that the version answers, with its own labels."""
        served = asyncio.run(self.residency.find(Ask(task="bolts")))
        assert (served.version, served.digest) == (version, digest)
        image_3HW = np.zeros((3, *self.runtime.backbone.image_size), dtype=np.uint8)
        [answer] = answer_rows(self.runtime, [Row(image=image_3HW, served=served)])
        assert {label for label, _ in answer.probabilities} == set(make_labels("bolts", NUM_CLASSES, seed))


@pytest.fixture(scope="module")
def good(backbone: Backbone) -> Files:
    return make_artifact(backbone, "bolts", NUM_CLASSES, seed=1)


@pytest.fixture(scope="module")
def better(backbone: Backbone) -> Files:
    return make_artifact(backbone, "bolts", NUM_CLASSES, seed=2)


@pytest.fixture
def plant(tmp_path: Path, backbone: Backbone, good: Files, caplog: pytest.LogCaptureFixture) -> Plant:
    # A pool of its own: in another test's, the slots of that test are freed at any time.
    plant = Plant(tmp_path / "store", Runtime(backbone, capacity_bytes=16 << 20), caplog)
    plant.serve(1, plant.put(good))
    plant.assert_serves(1, digest_of(good), seed=1)
    return plant


def assert_refused(plant: Plant, good: Files, digest: str, reason: str) -> None:
    plant.serve(2, digest)
    plant.assert_serves(1, digest_of(good), seed=1)
    state = plant.residency.state("bolts")
    assert (state.version, state.wanted_version) == (1, 2)
    # Clients learn no place of the store, the log has all of it.
    assert str(plant.folder) not in state.problem
    assert reason in plant.logged.text, plant.logged.text


def test_an_untampered_artifact_is_served(plant: Plant, better: Files):
    digest = plant.put(better)
    plant.serve(2, digest)
    plant.assert_serves(2, digest, seed=2)
    assert plant.residency.state("bolts").problem is None


@pytest.mark.parametrize("name", [TENSORS, CARD, RECORD, README])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_a_flipped_bit_is_found_wherever_it_is(
    plant: Plant, good: Files, better: Files, name: str, place: float
):
    digest = plant.put(better)
    path = plant.folder / "artifacts" / digest / name
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)
    assert_refused(plant, good, digest, "sha256")


@pytest.mark.parametrize("name", [TENSORS, CARD, RECORD, README])
@pytest.mark.parametrize("keep", [0, 1, -1])
def test_a_truncated_file_is_found(plant: Plant, good: Files, better: Files, name: str, keep: int):
    digest = plant.put(better)
    path = plant.folder / "artifacts" / digest / name
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(plant, good, digest, "sha256")


@pytest.mark.parametrize("name", [TENSORS, CARD, RECORD, README])
def test_a_file_that_is_gone_is_found(plant: Plant, good: Files, better: Files, name: str):
    digest = plant.put(better)
    (plant.folder / "artifacts" / digest / name).unlink()
    assert_refused(plant, good, digest, "no such object")


def test_the_artifact_of_an_older_version_under_the_new_ones_digest_is_found(
    plant: Plant, good: Files, better: Files
):
    digest = plant.put(better)
    for name, content in good.items():
        (plant.folder / "artifacts" / digest / name).write_bytes(content)
    assert_refused(plant, good, digest, "sha256")


def restamp(files: Files) -> Files:
    """The files with a card that names their digests."""
    card = json.loads(files[CARD])
    others = {name: content for name, content in files.items() if name != CARD}
    return {**others, CARD: json.dumps({**card, "files": describe_files(others)}).encode()}


def with_file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: restamp({**files, name: change(files[name])})


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Files], Files]:
    def tamper(content: bytes) -> bytes:
        tensors = load_tensors(content)
        change(tensors)
        return save_tensors(tensors)

    return with_file(TENSORS, tamper)


def with_card(**changed: object) -> Callable[[Files], Files]:
    """Keys of the card; a value may be a function of what was there."""

    def tamper(files: Files) -> Files:
        card = json.loads(files[CARD])
        for key, value in changed.items():
            card[key] = value(card[key]) if callable(value) else value
        return {**files, CARD: json.dumps(card).encode()}

    return tamper


def write_at(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[-1] = value

    return change


def make_header(entries: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(entries)) + entries + data


MANY = (
    b"{"
    + b",".join(
        b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(300_000)
    )
    + b"}"
)
TWICE = b'{"gate":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"gate":{}}'


def duplicate_key(content: bytes) -> bytes:
    return content.replace(b'"labels":', b'"labels": ["x", "y", "z"], "labels":', 1)


def shift_levels(tensors: dict[str, torch.Tensor]) -> None:
    tensors["independent"] = torch.cat([tensors["independent"]] * 2)


CLEVER: dict[str, tuple[Callable[[Files], Files], str]] = {
    "bit flip in the weights": (
        with_tensors(lambda t: t["head.weight"].view(torch.int32).bitwise_xor_(1 << 22)),
        "scores for the probe image are off",
    ),
    "sign flip of a bias": (
        with_tensors(lambda t: t["head.bias"].sub_(1.0)),
        "scores for the probe image are off",
    ),
    "truncated": (with_file(TENSORS, lambda content: content[:-4]), "safetensors"),
    "empty": (with_file(TENSORS, lambda content: b""), "header claims"),
    "trailing bytes": (with_file(TENSORS, lambda content: content + b"\0" * 4), "safetensors"),
    "NaN in the head": (with_tensors(write_at("head.weight", float("nan"))), "head.weight: holds NaN"),
    "infinity in the prototypes": (
        with_tensors(write_at("prototypes", float("inf"))),
        "prototypes: holds NaN or infinity",
    ),
    "duplicate key in the card": (lambda f: {**f, CARD: duplicate_key(f[CARD])}, "a key stands twice"),
    "duplicate tensor": (with_file(TENSORS, lambda content: make_header(TWICE)), "stands twice"),
    "300,000-entry header": (with_file(TENSORS, lambda content: make_header(MANY)), "header claims"),
    "header larger than the file": (
        with_file(TENSORS, lambda content: struct.pack("<Q", 1 << 62) + content[8:]),
        "header claims",
    ),
    "overlapping tensors": (
        with_file(
            TENSORS,
            lambda content: make_header(
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                bytes(8),
            ),
        ),
        "safetensors",
    ),
    "extra tensor": (with_tensors(lambda t: t.update(more=torch.zeros(2))), "unknown tensor 'more'"),
    "missing tensor": (with_tensors(lambda t: t.pop("shared")), "missing tensor 'shared'"),
    "wrong shape": (with_tensors(lambda t: t.update(shared=t["shared"][:1])), "shared: expected"),
    "wrong dtype": (with_tensors(lambda t: t.update(shared=t["shared"].half())), "found torch.float16"),
    "more levels than the card says": (with_tensors(shift_levels), "independent: expected"),
    "another width throughout": (
        with_tensors(
            lambda t: t.update(
                {
                    name: value[..., :16].contiguous()
                    for name, value in t.items()
                    if name not in ("gate", "head.bias")
                }
            )
        ),
        "layers of width",
    ),
    "another depth": (with_tensors(lambda t: t.update(gate=torch.zeros(9))), "layers of width"),
    "levels of terabytes": (
        lambda files: with_card(
            level_starts=list(range(1_000_000)), config=lambda c: {**c, "num_independent": 1000}
        )(with_tensors(lambda t: t.update(gate=torch.zeros(1_000_000)))(files)),
        "independent: expected",
    ),
    "extra key": (with_card(more=1), "unknown key 'more'"),
    "missing key": (lambda f: {**f, CARD: f[CARD].replace(b'"probe":', b'"prob":')}, "missing key 'probe'"),
    "unknown setting": (with_card(config=lambda c: {**c, "more": 1}), "more: unknown setting"),
    "a prompt that cannot be served": (
        with_card(config=lambda c: {**c, "attention": "joint"}),
        "it cannot be served",
    ),
    "one label less": (
        with_card(labels=lambda x: x[:-1], probe=lambda p: {**p, "logits": p["logits"][:-1]}),
        "head.weight: expected",
    ),
    "a label more": (
        with_card(labels=lambda x: [*x, "more"], probe=lambda p: {**p, "logits": [*p["logits"], 0.0]}),
        "head.weight: expected",
    ),
    "labels without scores": (with_card(labels=lambda x: [*x, "more"]), "a number for each label"),
    "one label twice": (with_card(labels=lambda x: [x[0], x[0], x[2]]), "labels: expected distinct names"),
    "probe altered": (
        with_card(probe=lambda p: {**p, "logits": [value + 0.5 for value in p["logits"]]}),
        "scores for the probe image are off",
    ),
    "probe of large numbers": (
        with_card(probe=lambda p: {**p, "logits": [1e29 for _ in p["logits"]]}),
        "scores for the probe image are off",
    ),
    "probe beyond float32": (
        with_card(probe=lambda p: {**p, "logits": [1e308 for _ in p["logits"]]}),
        "probe: expected",
    ),
    "probe beyond float64": (
        lambda f: {**f, CARD: re.sub(rb'"logits": \[\s*[^,]+', b'"logits": [7e777', f[CARD])},
        "probe: expected",
    ),
    "probe of endless whole numbers": (
        with_card(probe=lambda p: {**p, "logits": [10**400 for _ in p["logits"]]}),
        "probe: expected",
    ),
    "another task's prompt": (with_card(task="nuts"), "the prompt of task 'nuts'"),
    "deep nesting": (lambda f: {**f, CARD: b'{"files":' + b"[" * 100_000}, "prompt.json"),
    "a number of a million digits": (
        lambda f: {**f, CARD: f[CARD].replace(b'"schema": 3', b'"schema": ' + b"1" * 1_000_000)},
        "prompt.json",
    ),
    "a file of its own": (lambda f: restamp({**f, "run.py": b"print()"}), "run.py: unknown file"),
}


@pytest.mark.parametrize("name", CLEVER)
def test_what_is_signed_but_not_sound_is_refused(plant: Plant, good: Files, better: Files, name: str):
    tamper, reason = CLEVER[name]
    used_bytes = plant.runtime.used_bytes
    assert_refused(plant, good, plant.put(tamper(better)), reason)
    assert plant.runtime.used_bytes == used_bytes, "what was refused takes no room"


@pytest.mark.parametrize("claims_ours", [False, True])
def test_the_prompt_of_another_backbone_is_refused(
    plant: Plant, good: Files, backbone: Backbone, tmp_path: Path, claims_ours: bool
):
    write_backbone(tmp_path / "other", seed=1)
    files = make_artifact(load_backbone(str(tmp_path / "other")), "bolts", NUM_CLASSES, seed=2)
    reason = "belongs to backbone"
    if claims_ours:
        files = with_card(backbone=lambda told: {**told, "fingerprint": backbone.fingerprint})(files)
        reason = "scores for the probe image are off"
    assert_refused(plant, good, plant.put(files), reason)


@pytest.mark.parametrize("name", [TENSORS, CARD, RECORD, README])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_nothing_is_ever_unpickled(
    plant: Plant, good: Files, better: Files, tmp_path: Path, name: str, protocol: int
):
    mark = tmp_path / "unpickled"
    bomb = pickle.dumps(Bomb(mark), protocol)
    files = {**better, name: bomb}
    digest = plant.put(files if name == CARD else restamp(files))
    plant.serve(2, digest)
    asyncio.run(plant.residency.find(Ask(task="bolts")))
    state = plant.residency.state("bolts")
    if name in (TENSORS, CARD):
        assert_refused(plant, good, digest, name)
    else:
        assert state.version == 2, "they are for people, and are not read"
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists(), "it would have been noticed"


def test_a_bad_artifact_costs_the_store_one_look(plant: Plant, good: Files, better: Files):
    digest = plant.put(with_tensors(write_at("head.bias", float("nan")))(better))
    reads: list[str] = []
    fetch = plant.store.fetch
    plant.store.fetch = lambda digest: reads.append(digest) or fetch(digest)
    for _ in range(3):
        assert_refused(plant, good, digest, "head.bias: holds NaN")
        plant.residency.refresh()
    assert reads == [digest]
