"""A PEFT adapter answers as it does in PEFT, in a mixed batch too; what cannot is refused by name."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ship.artifact.files import insert_verified, load_files
from ship.artifact.held_out import HeldOut
from ship.artifact.importing import import_adapter, split_labels
from ship.artifact.peft import adapter_to_prompt, prompt_to_adapter, read_folder
from ship.backbone import Backbone
from ship.data import TaskData
from ship.data.fingerprint import fingerprint_split
from ship.errors import ArtifactError, DataError
from ship.evaluation.prediction import predict_logits
from ship.method.prompts import Prompt
from ship.runtime.runtime import Runtime
from ship.settings.config import TuneConfig
from ship.tuning.run import tune
from tests.unit.ship.artifact.peft_adapter import (
    change_config,
    change_tensors,
    load_adapter,
    make_backbone,
    make_model,
    peft_scores,
    save_adapter,
)
from tests.unit.ship.factory import make_data

EXACT = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return make_backbone(tmp_path_factory.mktemp("peft") / "tiny")


def read(folder: Path, backbone: Backbone, head: Path | None = None) -> Prompt:
    return adapter_to_prompt(read_folder(folder, head), backbone)


SETTINGS: dict[str, dict[str, object]] = {
    "qkv": {},
    "all of a block": {"target_modules": ["qkv", "attn.proj", "fc1", "fc2"]},
    "a pattern": {"target_modules": r"blocks\.\d+\.(attn\.proj|mlp\.fc[12])"},
    "some excluded": {"target_modules": r".*\.(qkv|fc1)", "exclude_modules": ["blocks.1.attn.qkv"]},
    "layers": {"target_modules": ["qkv"], "layers_to_transform": [1, 3], "layers_pattern": "blocks"},
    "one layer": {"target_modules": ["fc2"], "layers_to_transform": 2, "layers_pattern": ["blocks"]},
    "ranks and scales by layer": {
        "target_modules": ["qkv", "fc1"],
        "rank_pattern": {"blocks.0.attn.qkv": 2, "fc1": 7},
        "alpha_pattern": {r"blocks\.[12]\.attn\.qkv": 11, "fc1": 0.5},
    },
    "rank-stabilised": {"use_rslora": True, "rank_pattern": {"blocks.2.attn.qkv": 9}},
    "dropout and start": {"lora_dropout": 0.3, "init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_those_of_peft(name: str, frozen: Backbone, images: Tensor, tmp_path: Path) -> None:
    model = save_adapter(frozen, tmp_path, **SETTINGS[name])
    wanted_BC = peft_scores(model, frozen, images)
    torch.testing.assert_close(
        peft_scores(load_adapter(frozen, tmp_path), frozen, images), wanted_BC, **EXACT
    )

    found_BC = predict_logits(frozen, read(tmp_path, frozen), images)

    torch.testing.assert_close(found_BC, wanted_BC, **EXACT)
    assert not torch.allclose(found_BC, make_model(frozen)(frozen.normalise(images)), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_adapter_in_half_precision_is_computed_in_float32(
    dtype: torch.dtype, frozen: Backbone, images: Tensor, tmp_path: Path
) -> None:
    save_adapter(frozen, tmp_path)
    change_tensors(tmp_path, lambda t: t.update({key: value.to(dtype) for key, value in t.items()}))
    wanted_BC = peft_scores(load_adapter(frozen, tmp_path), frozen, images)
    torch.testing.assert_close(predict_logits(frozen, read(tmp_path, frozen), images), wanted_BC, **EXACT)


def test_a_mixed_batch_answers_as_peft_and_as_the_tuned_prompt(
    frozen: Backbone, data: TaskData, images: Tensor, tmp_path: Path
) -> None:
    tuned = tune(frozen, data, TuneConfig(epochs=1, num_independent=3, num_shared=2)).prompt
    folders = {"qkv": tmp_path / "a", "all of a block": tmp_path / "b"}
    models = [save_adapter(frozen, folder, seed=3, **SETTINGS[name]) for name, folder in folders.items()]
    imported = [import_adapter("caps", frozen, read_folder(folder))[1] for folder in folders.values()]
    runtime = Runtime(frozen)
    slots = [insert_verified(runtime, load_files(files)) for files in imported]
    ours = runtime.insert(tuned)

    rows = runtime.infer(images[:3], [slots[0], ours, slots[1]])

    for row, model in ((0, models[0]), (2, models[1])):
        torch.testing.assert_close(rows[row], peft_scores(model, frozen, images[row : row + 1])[0], **EXACT)
    torch.testing.assert_close(rows[1], predict_logits(frozen, tuned, images[1:2])[0], **EXACT)


def test_a_head_may_come_from_a_file_of_its_own(frozen: Backbone, images: Tensor, tmp_path: Path) -> None:
    model = save_adapter(frozen, tmp_path / "adapter", modules_to_save=None)
    with pytest.raises(ArtifactError, match="modules_to_save: the adapter holds no head"):
        read(tmp_path / "adapter", frozen)
    head = {f"head.{name}": weight for name, weight in model.base_model.model.head.state_dict().items()}
    save_file(head, tmp_path / "head.safetensors")
    found_BC = predict_logits(
        frozen, read(tmp_path / "adapter", frozen, tmp_path / "head.safetensors"), images
    )
    torch.testing.assert_close(found_BC, peft_scores(model, frozen, images), **EXACT)

    save_adapter(frozen, tmp_path / "with head")
    with pytest.raises(ArtifactError, match="holds a head of its own"):
        read(tmp_path / "with head", frozen, tmp_path / "head.safetensors")
    save_file({"weight": torch.zeros(3, 32)}, tmp_path / "half.safetensors")
    with pytest.raises(ArtifactError, match="expected tensors weight and bias"):
        read(tmp_path / "adapter", frozen, tmp_path / "half.safetensors")


@pytest.mark.parametrize("targets", ["qkv", "qkv+proj", "qkv+proj+fc1+fc2"])
def test_what_was_tuned_here_answers_the_same_in_peft_and_comes_back(
    targets: str, frozen: Backbone, data: TaskData, images: Tensor, tmp_path: Path
) -> None:
    config = TuneConfig(kind="lora", rank=3, low_rank_on=targets, epochs=2, low_rank_rate_scale=1.0)
    tuned = tune(frozen, data, config).prompt
    for name, content in prompt_to_adapter(tuned, frozen.name, data.labels).items():
        (tmp_path / name).write_bytes(content)

    by_peft_BC = peft_scores(load_adapter(frozen, tmp_path), frozen, images)
    torch.testing.assert_close(by_peft_BC, predict_logits(frozen, tuned, images), **EXACT)

    back = read(tmp_path, frozen).state_dict()
    wanted = {
        name: tensor for name, tensor in tuned.state_dict().items() if name.startswith(("low_", "head"))
    }
    for name, tensor in wanted.items():
        assert torch.equal(back[name], tensor), name
    _, files = import_adapter("caps", frozen, read_folder(tmp_path))
    assert load_files(files).card.labels == data.labels


REFUSED_PROMPTS = {
    "kind: expected `lora`, .*found ship": {"kind": "ship"},
    "kind: expected `lora`, .*found ship\\+lora": {"kind": "ship+lora"},
    "kind: expected `lora`, .*found probe": {"kind": "probe"},
    "head: expected `cls`, .*found 3 earlier layers": {"kind": "lora", "head": "layers"},
}


@pytest.mark.parametrize("what", REFUSED_PROMPTS)
def test_what_is_no_peft_adapter_is_not_exported(what: str, frozen: Backbone, data: TaskData) -> None:
    config = TuneConfig(**{"epochs": 1, "num_independent": 2, "num_shared": 2, **REFUSED_PROMPTS[what]})
    with pytest.raises(ArtifactError, match=what):
        prompt_to_adapter(tune(frozen, data, config).prompt, frozen.name, data.labels)


def test_tiles_are_not_exported(frozen: Backbone) -> None:
    prompt = Prompt(
        TuneConfig(kind="lora"),
        level_starts=(0,),
        depth=frozen.info.depth,
        prototypes_RD=torch.zeros(0, frozen.info.width),
        num_classes=2,
        num_tiles=4,
    )
    with pytest.raises(ArtifactError, match=r"tiles: expected 1 a picture, .*found 4"):
        prompt_to_adapter(prompt, frozen.name, ("a", "b"))


def key_of(module: str, part: str = "A") -> str:
    return f"base_model.model.{module}.lora_{part}.weight"


def set_nan(tensors: dict[str, Tensor]) -> None:
    tensors[key_of("blocks.0.attn.qkv")][0, 0] = float("nan")


REFUSED_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "DoRA": (lambda f: change_config(f, use_dora=True), "use_dora: 'True': DoRA rescales"),
    "biases": (lambda f: change_config(f, bias="lora_only"), "bias: expected none"),
    "bias of updates": (lambda f: change_config(f, lora_bias=True), "lora_bias: 'True': an update with"),
    "transposed layers": (lambda f: change_config(f, fan_in_fan_out=True), "fan_in_fan_out: expected false"),
    "another method": (lambda f: change_config(f, peft_type="IA3"), "peft_type: expected LORA"),
    "changed backbone": (
        lambda f: change_config(f, init_lora_weights="pissa"),
        "init_lora_weights: expected",
    ),
    "repeated layers": (
        lambda f: change_config(f, layer_replication=[[0, 4]]),
        "layer_replication: .*repeat",
    ),
    "tokens": (lambda f: change_config(f, trainable_token_indices=[1]), "updates embeddings"),
    "a setting of tomorrow": (lambda f: change_config(f, new_thing=1), "new_thing: '1': it may change what"),
    "other modules": (lambda f: change_config(f, modules_to_save=["head", "norm"]), "at most the head"),
    "no rank": (lambda f: change_config(f, r=0), "r: expected a whole number from 1 to 256"),
    "infinite scale": (lambda f: change_config(f, lora_alpha=1e300), "lora_alpha: expected a number"),
    "slow pattern": (lambda f: change_config(f, target_modules="(a|b)*(.+)+$"), "target_modules: expected"),
    "slow pattern in disguise": (
        lambda f: change_config(f, target_modules="(?x)(.+)#\n*x"),
        "target_modules: expected",
    ),
    "slow rank pattern": (lambda f: change_config(f, rank_pattern={"(x+)+": 1}), "rank_pattern: expected"),
    "broken pattern": (lambda f: change_config(f, target_modules="(qkv"), "target_modules: expected"),
    "a target without tensors": (
        lambda f: change_config(f, target_modules=["qkv", "fc1"]),
        "blocks.0.mlp.fc1: lora_A or lora_B is missing; adapter_config.json targets the layer",
    ),
    "tensors without a target": (
        lambda f: change_config(f, target_modules=["fc1"]),
        "blocks.0.attn.qkv: adapter_config.json does not target it",
    ),
    "another rank than it says": (
        lambda f: change_config(f, r=5),
        r"blocks.0.attn.qkv.lora_A: expected shape \(5, 32\), found \(4, 32\)",
    ),
    "two values": (
        lambda f: (f / "adapter_config.json").write_text('{"r": 1, "r": 2}'),
        "adapter_config.json: .*stands twice",
    ),
    "half a pair": (
        lambda f: change_tensors(f, lambda t: t.pop(key_of("blocks.1.attn.qkv", "B"))),
        "blocks.1.attn.qkv: lora_A or lora_B is missing",
    ),
    "a deeper model": (
        lambda f: change_tensors(f, lambda t: t.update({key_of("blocks.9.attn.qkv"): torch.zeros(4, 32)})),
        "blocks.9.attn.qkv: backbone 'tiny' has 4 blocks",
    ),
    "a wider model": (
        lambda f: change_tensors(f, lambda t: t.update({key_of("blocks.0.attn.qkv"): torch.zeros(4, 64)})),
        r"expected shape \(4, 32\), found \(4, 64\)",
    ),
    "patch embedding": (
        lambda f: change_tensors(
            f, lambda t: t.update({key_of("patch_embed.proj"): torch.zeros(4, 3, 8, 8)})
        ),
        "patch_embed.proj.lora_A.weight': an update of another layer than attn.qkv",
    ),
    "updated head": (
        lambda f: change_tensors(f, lambda t: t.update({key_of("head"): torch.zeros(4, 32)})),
        "head.lora_A.weight': an update of another layer",
    ),
    "embeddings": (
        lambda f: change_tensors(
            f, lambda t: t.update({"base_model.model.x.lora_embedding_A": torch.ones(1)})
        ),
        "an update of embeddings",
    ),
    "DoRA's scale": (
        lambda f: change_tensors(
            f,
            lambda t: t.update(
                {"base_model.model.blocks.0.attn.qkv.lora_magnitude_vector.weight": torch.ones(96)}
            ),
        ),
        "DoRA's scale of a layer",
    ),
    "unknown tensor": (
        lambda f: change_tensors(f, lambda t: t.update({"base_model.model.norm.weight": torch.ones(32)})),
        "norm.weight': unknown tensor",
    ),
    "another prefix": (
        lambda f: change_tensors(
            f, lambda t: t.update({"blocks.0.attn.qkv.lora_A.weight": torch.ones(4, 32)})
        ),
        "expected names that start with base_model.model.",
    ),
    "NaN": (lambda f: change_tensors(f, set_nan), "found torch.float32 with NaN or infinity"),
    "whole numbers": (
        lambda f: change_tensors(
            f, lambda t: t.update({"base_model.model.head.bias": torch.ones(3, dtype=torch.int64)})
        ),
        "expected finite numbers in floating point, found torch.int64",
    ),
    "half a head": (
        lambda f: change_tensors(f, lambda t: t.pop("base_model.model.head.bias")),
        "head.bias: missing",
    ),
    "no classes": (
        lambda f: change_tensors(
            f,
            lambda t: t.update(
                {
                    f"base_model.model.head.{part}": torch.zeros(0, *size)
                    for part, size in (("weight", (32,)), ("bias", ()))
                }
            ),
        ),
        "bias: expected one number for each class, found none",
    ),
    "no safetensors": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x80\x04" + b"." * 50),
        "adapter_model.safetensors: its header claims",
    ),
    "a pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "a pickle, which can run any program and is not read",
    ),
    "no adapter": (lambda f: (f / "adapter_config.json").unlink(), "cannot be read: .*expected a folder"),
}


@pytest.fixture(scope="module")
def saved(frozen: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("saved")
    save_adapter(frozen, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_what_cannot_be_run_exactly_is_refused_by_name(
    name: str, frozen: Backbone, saved: dict[str, bytes], tmp_path: Path
) -> None:
    for file, content in saved.items():
        (tmp_path / file).write_bytes(content)
    tamper, what = REFUSED_FILES[name]
    tamper(tmp_path)
    with pytest.raises(ArtifactError) as refused:
        read(tmp_path, frozen)
    assert any(re.search(what, problem) for problem in refused.value.problems), refused.value.problems


def test_an_mlp_of_another_form_is_not_updated_in_silence(tmp_path: Path) -> None:
    narrow = make_backbone(tmp_path / "narrow", mlp_ratio=2.0)
    save_adapter(narrow, tmp_path / "fc", target_modules=["fc1"])
    with pytest.raises(ArtifactError, match="an MLP whose layers cannot be updated"):
        read(tmp_path / "fc", narrow)
    save_adapter(narrow, tmp_path / "qkv")
    assert read(tmp_path / "qkv", narrow).config.low_rank_targets == ("qkv",)


def test_data_measures_an_import_in_the_order_of_its_outputs(frozen: Backbone, tmp_path: Path) -> None:
    data = make_data(num_train=60)
    assert data.test is not None
    data = replace(data, test=replace(data.test, contents=tuple(map(str, range(len(data.test))))))
    tuned = tune(frozen, data, TuneConfig(kind="lora", epochs=6, rank=2)).prompt
    turned = (data.labels[2], data.labels[0], data.labels[1])
    for name, content in prompt_to_adapter(tuned, frozen.name, turned).items():
        (tmp_path / name).write_bytes(content)
    order = torch.tensor([2, 0, 1])
    change_tensors(
        tmp_path, lambda t: t.update({key: value[order] for key, value in t.items() if ".head." in key})
    )
    wanted_BC = predict_logits(frozen, tuned, data.test.images_B3HW)
    accuracy = float((wanted_BC.argmax(1) == data.test.labels_B).double().mean())

    key, files = import_adapter("caps", frozen, read_folder(tmp_path), data=data)

    card = load_files(files).card
    assert (card.labels, card.task_key, card.data_fingerprint) == (turned, key, data.fingerprint)
    assert card.metrics["accuracy"] == pytest.approx(accuracy)
    assert {"probe_accuracy", "accuracy_low", "min_recall", "num_test"} <= set(card.metrics)
    held_out = HeldOut.from_json(files["held_out.json"])
    assert held_out.labels == turned
    told = json.loads(files["record.json"])["held_out"]["fingerprint"]
    assert told == fingerprint_split(data.labels, data.test), "the order of the outputs plays no part"
    right = torch.tensor(held_out.logits_BC).argmax(1) == torch.tensor(held_out.labels_B)
    assert float(right.double().mean()) == pytest.approx(accuracy)
    assert held_out.probe_logits_BC is not None
    _, secret = import_adapter("caps", frozen, read_folder(tmp_path), data=data, thumbnails=False)
    assert held_out.thumbnails
    assert not HeldOut.from_json(secret["held_out.json"]).thumbnails
    with pytest.raises(DataError, match="classes that the adapter does not: class-2"):
        import_adapter("caps", frozen, read_folder(tmp_path), labels=("class-0", "class-1", "x"), data=data)


def test_an_import_that_was_not_measured_says_where_it_comes_from(
    frozen: Backbone, saved: dict[str, bytes], tmp_path: Path
) -> None:
    for file, content in saved.items():
        (tmp_path / file).write_bytes(content)
    adapter = read_folder(tmp_path)
    key, files = import_adapter("caps", frozen, adapter)
    card = load_files(files).card
    assert "accuracy" not in card.metrics
    assert "held_out.json" not in files
    assert card.labels == ("0", "1", "2")
    assert card.config.kind == "lora"
    assert card.metrics["low_rank_bytes"] == 4 * 4 * 4 * (32 + 96)
    assert card.metrics["head_bytes"] == 4 * (3 * 32 + 3)
    assert b'"format": "peft"' in files["record.json"]
    assert import_adapter("caps", frozen, adapter)[0] == key
    assert import_adapter("caps", frozen, adapter, labels=("a", "b", "c"))[0] != key
    for labels in (("a", "b"), ("a", "a", "b"), ("a", "b", "")):
        with pytest.raises(ArtifactError, match="labels: expected 3 distinct names"):
            import_adapter("caps", frozen, adapter, labels=labels)


def test_the_mark_of_utf_8_is_no_part_of_the_first_class() -> None:
    assert split_labels(b"\xef\xbb\xbfgood\r\nscratch\r\n") == ("good", "scratch")
