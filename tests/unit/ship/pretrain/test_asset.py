"""The weights in the box: what the package ships, not what the recipe could do."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ship
from ship.errors import BackboneError
from ship.pretrain.card import render_card
from ship.pretrain.export import load_exported
from ship.pretrain.probe import extract_features
from ship.pretrain.probe_tasks import TASKS
from ship.vit import resolve_model_data_config, timm

FOLDER = Path(ship.__file__).parent / "assets" / "bundled"


def test_it_is_small_and_finite_in_float16() -> None:
    weights = load_file(FOLDER / "model.safetensors")

    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 12_000_000
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert all(value.isfinite().all() for value in weights.values())


def test_timm_loads_it_from_the_folder_without_a_network() -> None:
    vit = timm.create_model(f"local-dir:{FOLDER}", pretrained=True).eval()

    trained, _ = load_exported(FOLDER)
    assert len(vit.blocks) == 12
    assert vit.num_classes == 0
    assert vit.global_pool == "token"
    data = resolve_model_data_config(vit)
    size = data["input_size"]
    assert list(data["mean"]) == list(data["std"]) == [0.5, 0.5, 0.5]
    assert data["interpolation"] == "bicubic"
    assert 48 <= size[-1] <= 64
    x_BCHW = torch.rand(2, *size)
    with torch.inference_mode():
        features_BD = vit(x_BCHW)
        assert torch.equal(features_BD, trained(x_BCHW))
    assert features_BD.shape == (2, vit.embed_dim)


def test_its_card_says_what_the_files_beside_it_say() -> None:
    assert (FOLDER / "README.md").read_text() == render_card(FOLDER)


def test_it_cost_no_more_than_25_minutes_of_two_cores() -> None:
    assert json.loads((FOLDER / "training.json").read_text())["cpu_s"] <= 25 * 2 * 60


def test_its_linear_probe_beats_the_untrained_one_everywhere() -> None:
    probe = json.loads((FOLDER / "probe.json").read_text())

    assert [task["task"] for task in probe["tasks"]] == list(TASKS)
    for task in probe["tasks"]:
        assert task["linear"] > task["linear_untrained"], task


def test_on_200_digits_it_beats_the_untrained_one_here_and_now() -> None:
    task = TASKS["digits, 200"](0)
    accuracies = []
    for vit in load_exported(FOLDER):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, tol=1e-2, max_iter=300))
        probe.fit(extract_features(vit, task.train_BHW), task.train_labels_B)
        test_BD = extract_features(vit, task.test_BHW[:300])
        accuracies.append(probe.score(test_BD, task.test_labels_B[:300]))

    # Ten points: half the gap that probe.json reports, and four standard errors of 300 test images.
    trained, untrained = accuracies
    assert trained > untrained + 0.1


def test_a_folder_without_a_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"expected config\.json"):
        load_exported(tmp_path)
