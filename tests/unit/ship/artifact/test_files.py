"""An artifact comes back as it was saved, and anything else is refused with what and why."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ship.artifact.card import PromptCard
from ship.artifact.files import (
    FILES,
    PROBE_TOLERANCE,
    ask_probe,
    digest_of,
    insert_verified,
    load,
    load_files,
    probe_difference,
    save,
)
from ship.artifact.held_out import HELD_OUT
from ship.artifact.making import make_artifact
from ship.backbone import Backbone
from ship.data import TaskData
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError, PromptTooLargeError
from ship.runtime.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.unit.orchestrator.serve.factory import make_artifact as make_small_artifact
from tests.unit.orchestrator.serve.factory import make_prompt
from tests.unit.ship.factory import make_backbone

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def files(backbone: Backbone, data: TaskData) -> Files:
    config = TuneConfig(
        epochs=2, num_independent=3, num_shared=2, num_attribute=4, num_prototypes=8, threshold=0.9
    )
    result = tune(backbone, data, config)
    return make_artifact("bottle-caps", backbone, data, result, task_key="a" * 64)


def restamp(files: Files, **changed: bytes) -> Files:
    """Files whose card names the changed content's digests: what an attacker with the format would write."""
    files = {**files, **{name.replace("__", "."): content for name, content in changed.items()}}
    card = json.loads(files["prompt.json"])
    card["files"] = {
        name: {"sha256": hashlib.sha256(files[name]).hexdigest(), "bytes": len(files[name])}
        for name in files
        if name != "prompt.json"
    }
    return {**files, "prompt.json": json.dumps(card).encode()}


def with_card(files: Files, change: Callable[[dict], None]) -> Files:
    card = json.loads(files["prompt.json"])
    change(card)
    return {**files, "prompt.json": json.dumps(card).encode()}


def with_tensors(files: Files, change: Callable[[dict], None]) -> Files:
    tensors = load_tensors(files["prompt.safetensors"])
    change(tensors)
    return restamp(files, prompt__safetensors=save_tensors(tensors))


def test_what_is_loaded_answers_as_what_was_tuned(
    files: Files, backbone: Backbone, data: TaskData, tmp_path: Path
) -> None:
    digest = save(tmp_path / "artifact", files)
    loaded = load(tmp_path / "artifact")
    assert loaded.digest == digest == digest_of(files)
    assert loaded.card.labels == data.labels
    assert {path.name for path in (tmp_path / "artifact").iterdir()} == {*FILES, HELD_OUT}
    runtime = Runtime(backbone)
    slot = insert_verified(runtime, loaded)
    logits = torch.stack(runtime.infer(data.test.images_B3HW, [slot] * len(data.test.labels_B)))
    accuracy = float((logits.argmax(1) == data.test.labels_B).double().mean())
    assert accuracy == pytest.approx(loaded.card.metrics["accuracy"])


def test_the_card_records_what_people_ask_for(files: Files) -> None:
    card, record = json.loads(files["prompt.json"]), json.loads(files["record.json"])
    assert {"accuracy", "accuracy_low", "accuracy_high", "probe_accuracy", "num_train"} <= set(
        card["metrics"]
    )
    assert (record["train_counts"], record["balanced_scores"]) == ([8, 8, 8], False)
    assert len(record["history"]) == 2
    assert torch.tensor(record["affinity"]).shape == (4, 4)
    assert torch.tensor(record["confusion"]).sum() == 18
    assert "bottle-caps" in files["README.md"].decode()


def test_the_decision_is_read_back_with_its_distance(
    files: Files, backbone: Backbone, data: TaskData
) -> None:
    loaded = load_files(files)
    rule = loaded.card.decision
    assert json.loads(files["prompt.json"])["decision"] == rule.to_dict()
    assert rule.expected["num_images"] == len(data.held_out)
    assert loaded.distance is not None
    runtime = Runtime(backbone)
    images = data.held_out.images_B3HW
    rows = runtime.infer_rows(images, [insert_verified(runtime, loaded)] * len(images))
    farthest = max(loaded.distance.distance(row.feature_D) for row in rows)
    # Of fewer than 99 held-out images the limit is the farthest.
    assert rule.max_distance == pytest.approx(farthest, rel=1e-4)
    assert loaded.card.metrics["calibration_error"] == rule.expected["calibration_error"]["after"]
    assert "`unsure` beyond distance" in files["README.md"].decode()


def test_a_balanced_task_says_how_frequent_its_classes_are(
    files: Files, backbone: Backbone, data: TaskData
) -> None:
    assert load_files(files).card.decision.frequencies is None
    for balance in ("prior", "weights"):
        result = tune(backbone, data, TuneConfig(kind="probe", balance=balance))
        loaded = load_files(make_artifact("bottle-caps", backbone, data, result))
        shares = loaded.card.decision.frequencies
        # Six held-out images of each class.
        assert shares == {label: pytest.approx(1 / 3, abs=1e-6) for label in data.labels}


def test_an_artifact_of_schema_2_has_the_default_rule_and_no_distance(
    files: Files, backbone: Backbone
) -> None:
    def age(card: dict) -> None:
        card["schema"] = 2
        del card["decision"]

    def forget(tensors: dict) -> None:
        del tensors["distance.means"], tensors["distance.directions"]

    loaded = load_files(with_card(with_tensors(files, forget), age))
    assert (loaded.card.schema, loaded.card.decision, loaded.distance) == (2, DecisionRule(), None)
    assert insert_verified(Runtime(backbone), loaded).num_classes == 3
    # It is written as it was, but for what it lacked.
    assert PromptCard.from_json(loaded.card.to_json()) == loaded.card


TWICE = b'{"gate":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"gate":{}}'


def write_nan(tensors: dict) -> None:
    tensors["shared"][0, 0] = float("nan")


HOSTILE: dict[str, tuple[Callable[[Files], Files], str]] = {
    "bit flip": (
        lambda f: {**f, "prompt.safetensors": f["prompt.safetensors"][:-1] + b"\x55"},
        "it was changed",
    ),
    "truncated": (lambda f: restamp(f, prompt__safetensors=f["prompt.safetensors"][:-9]), "safetensors"),
    "trailing bytes": (
        lambda f: restamp(f, prompt__safetensors=f["prompt.safetensors"] + b"x"),
        "safetensors",
    ),
    "empty": (lambda f: restamp(f, prompt__safetensors=b""), "header claims"),
    "pickle renamed": (
        lambda f: restamp(f, prompt__safetensors=b"\x80\x04\x95" + b"." * 50),
        "header claims",
    ),
    "300,000-entry header": (
        lambda f: restamp(f, prompt__safetensors=struct.pack("<Q", 20_000_000) + b" " * 20_000_000),
        "header claims",
    ),
    "duplicate tensor": (
        lambda f: restamp(
            f,
            prompt__safetensors=struct.pack("<Q", len(TWICE)) + TWICE,
        ),
        "stands twice",
    ),
    "NaN": (lambda f: with_tensors(f, write_nan), "NaN or infinity"),
    "extra tensor": (lambda f: with_tensors(f, lambda t: t.update(x=torch.zeros(1))), "unknown tensor 'x'"),
    "missing tensor": (lambda f: with_tensors(f, lambda t: t.pop("shared")), "missing tensor 'shared'"),
    "no prototypes": (lambda f: with_tensors(f, lambda t: t.pop("prototypes")), "prototypes"),
    "wrong shape": (
        lambda f: with_tensors(f, lambda t: t.update(shared=torch.zeros(3, 32))),
        "shared: expected",
    ),
    "wrong type": (
        lambda f: with_tensors(f, lambda t: t.update(shared=t["shared"].half())),
        "expected torch.float32",
    ),
    "unknown key": (lambda f: with_card(f, lambda c: c.update(extra=1)), "unknown key 'extra'"),
    "missing key": (lambda f: with_card(f, lambda c: c.pop("labels")), "missing key 'labels'"),
    "newer schema": (lambda f: with_card(f, lambda c: c.update(schema=4)), "schema: expected 1, 2, 3"),
    "half a surrogate pair": (
        lambda f: with_card(f, lambda c: c.update(task="\ud800")),
        "surrogates not allowed",
    ),
    "schema of a list": (lambda f: with_card(f, lambda c: c.update(schema=[])), "schema: expected 1, 2, 3"),
    "former schema, newer keys": (
        lambda f: with_card(f, lambda c: c.update(schema=1)),
        "method: expected",
    ),
    "head reads the last layer": (lambda f: with_card(f, lambda c: c.update(head_layers=[3])), "head_layers"),
    "head reads falling layers": (lambda f: with_card(f, lambda c: c.update(head_layers=[1, 0])), "head_lay"),
    "a size of text": (
        lambda f: with_card(f, lambda c: c["backbone"].update(image_size="48")),
        "backbone: exp",
    ),
    "no tiles": (lambda f: with_card(f, lambda c: c["view"].update(tiles="0x1")), "view: tiles: expected"),
    "too many tiles": (lambda f: with_card(f, lambda c: c["view"].update(tiles="9x9")), "of at most 64"),
    "open tiles": (lambda f: with_card(f, lambda c: c["view"].update(tiles="auto")), "with a fixed grid"),
    "other bits": (lambda f: with_card(f, lambda c: c["view"].update(bits=9)), "view: bits: expected 8, 10"),
    "no fit": (lambda f: with_card(f, lambda c: c["view"].pop("fit")), "view: expected exactly"),
    "a text as crop": (
        lambda f: with_card(f, lambda c: c["view"].update(crop="all")),
        "view: crop: expected",
    ),
    "low ranks that are not there": (
        lambda f: with_card(f, lambda c: c["config"].update(kind="ship+lora")),
        "missing tensor 'low_rank.down.qkv'",
    ),
    "no decision": (lambda f: with_card(f, lambda c: c.pop("decision")), "missing key 'decision'"),
    "decision of another kind": (
        lambda f: with_card(f, lambda c: c.update(decision=[])),
        "decision rule: exp",
    ),
    "temperature of 0": (
        lambda f: with_card(f, lambda c: c["decision"].update(temperature=0)),
        "temperature: expected",
    ),
    "schema 2 with a decision": (
        lambda f: with_card(f, lambda c: (c.update(schema=2), c["decision"].update(schema=9))),
        "decision rule: expected",
    ),
    "distance of another width": (
        lambda f: with_tensors(f, lambda t: t.update({"distance.directions": torch.zeros(3, 9).half()})),
        "distance.directions: expected",
    ),
    "half of a distance": (
        lambda f: with_tensors(f, lambda t: t.pop("distance.means")),
        "missing tensor 'distance.means'",
    ),
    "other method": (lambda f: with_card(f, lambda c: c.update(method="vpt")), "method: expected"),
    "labels twice": (lambda f: with_card(f, lambda c: c.update(labels=["a", "a", "b"])), "labels: expected"),
    "config null": (lambda f: with_card(f, lambda c: c.update(config=None)), "config: expected settings"),
    "config a word": (lambda f: with_card(f, lambda c: c.update(config="ship")), "config: expected settings"),
    "labels no list": (lambda f: with_card(f, lambda c: c.update(labels=3)), "labels: expected"),
    "unknown setting": (lambda f: with_card(f, lambda c: c["config"].update(foo=1)), "unknown setting"),
    "levels out of range": (lambda f: with_card(f, lambda c: c.update(level_starts=[0, 9])), "level_starts"),
    "levels no numbers": (lambda f: with_card(f, lambda c: c.update(level_starts=["0"])), "level_starts"),
    "NaN in JSON": (
        lambda f: {**f, "prompt.json": f["prompt.json"].replace(b'"accuracy":', b'"x": NaN, "accuracy":')},
        "NaN is no number",
    ),
    "deep JSON": (lambda f: {**f, "prompt.json": b"[" * 100_000}, "prompt.json"),
    "no JSON": (lambda f: {**f, "prompt.json": b"\xff\xfe"}, "prompt.json"),
    "extra file": (lambda f: {**f, "run.py": b""}, "run.py: unknown file"),
    "missing file": (lambda f: {k: v for k, v in f.items() if k != "record.json"}, "record.json: missing"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_sound_is_refused(files: Files, name: str) -> None:
    tamper, what = HOSTILE[name]
    with pytest.raises(ArtifactError, match=what):
        load_files(tamper(files))


def test_another_digest_than_the_expected_one_is_refused(files: Files) -> None:
    with pytest.raises(ArtifactError, match="expected sha256 bbbb"):
        load_files(files, digest="b" * 64)


def test_a_prompt_of_another_backbone_is_refused(files: Files) -> None:
    with pytest.raises(ArtifactError, match="belongs to backbone 'tiny'"):
        insert_verified(Runtime(make_backbone(seed=1)), load_files(files))


def test_a_prompt_that_answers_the_probe_otherwise_is_refused(files: Files, backbone: Backbone) -> None:
    swapped = with_tensors(files, lambda t: t.update({"head.bias": t["head.bias"] + 1.0}))
    with pytest.raises(ArtifactError, match="scores for the probe image are off"):
        insert_verified(Runtime(backbone), load_files(swapped))


PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_a_wrong_prompt_is_refused_in_every_precision(
    files: Files, backbone: Backbone, data: TaskData, dtype: torch.dtype
) -> None:
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=4 << 20)
    assert insert_verified(runtime, load_files(files)).num_classes == 3
    used_bytes = runtime.used_bytes
    assert used_bytes == 0, "the slot was let go of"
    config = replace(load_files(files).card.config, seed=1)
    other = make_artifact("bottle-caps", backbone, data, tune(backbone, data, config))
    exchanged = restamp(files, prompt__safetensors=other["prompt.safetensors"])
    # Less than half precision can tell from rounding: float32 has to have a look as well.
    shifted = with_tensors(files, lambda t: t.update({"head.bias": t["head.bias"] + 0.02}))
    for wrong in (exchanged, shifted):
        with pytest.raises(ArtifactError, match=r"scores for the probe image are off by .* in float32"):
            insert_verified(runtime, load_files(wrong))
    assert runtime.used_bytes == 0


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_the_tolerance_of_a_precision_lies_between_rounding_and_another_prompt(
    backbone: Backbone, dtype: torch.dtype
) -> None:
    prompts = [make_prompt(backbone, 5, seed) for seed in range(4)]
    artifacts = [load_files(make_small_artifact(backbone, "bolts", prompt=prompt)) for prompt in prompts]
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=4 << 20)
    scores = [ask_probe(runtime, runtime.insert(prompt)) for prompt in prompts]
    for number, loaded in enumerate(artifacts):
        differences = [probe_difference(loaded, found) for found in scores]
        own = differences.pop(number)
        # A margin on both sides.
        assert 3 * own < PROBE_TOLERANCE[dtype]
        assert min(differences) > 1.5 * PROBE_TOLERANCE[dtype]


def test_a_prompt_that_a_precision_cannot_hold_is_refused_in_that_one_alone(backbone: Backbone) -> None:
    prompt = make_prompt(backbone, 3, 0)
    with torch.no_grad():
        # Beyond the largest number of float16, 65504.
        prompt.head.weight.mul_(1e8)
    loaded = load_files(make_small_artifact(backbone, "bolts", prompt=prompt))
    for dtype in (torch.float32, torch.bfloat16):
        assert insert_verified(Runtime(backbone, dtype=dtype), loaded).num_classes == 3
    with pytest.raises(ArtifactError, match="off by nan of their size in float16"):
        insert_verified(Runtime(backbone, dtype=torch.float16), loaded)


def test_room_is_made_for_what_can_fit_and_for_nothing_else(files: Files, backbone: Backbone) -> None:
    num_bytes = insert_verified(Runtime(backbone), load_files(files)).num_bytes
    padding_bytes = 4 * backbone.info.width
    runtime = Runtime(backbone, capacity_bytes=num_bytes + padding_bytes)
    held = [insert_verified(runtime, load_files(files))]
    lacking: list[int] = []

    def make_room(lacking_bytes: int) -> bool:
        lacking.append(lacking_bytes)
        has_gone = bool(held)
        held.clear()
        return has_gone

    held.append(insert_verified(runtime, load_files(files), make_room))
    assert lacking == [num_bytes]
    with pytest.raises(PromptTooLargeError):
        insert_verified(Runtime(backbone, capacity_bytes=num_bytes), load_files(files), make_room)
    assert (len(lacking), len(held)) == (1, 1)


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact"):
        load(tmp_path)


def test_an_artifact_of_the_first_release_answers_as_it_did(backbone: Backbone) -> None:
    """Written by version 0.1.0, when its settings still had `attention`."""
    loaded = load(Path(__file__).parents[3] / "fixtures" / "artifact-0.1.0")
    assert (loaded.card.task, loaded.card.task_key) == ("caps", "a" * 64)
    assert (loaded.card.schema, loaded.card.method) == (1, "ship-1")
    assert (loaded.card.config.kind, loaded.card.config.balance) == ("ship", "none")
    assert (loaded.card.decision, loaded.distance) == (DecisionRule(), None)
    assert insert_verified(Runtime(backbone), loaded).num_classes == 3
