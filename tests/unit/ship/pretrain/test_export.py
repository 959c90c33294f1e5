from pathlib import Path

import numpy as np
import pytest
import torch

from ship.pretrain.export import export_backbone, load_exported, write_probe
from ship.pretrain.probe import ProbeResult, format_table
from ship.pretrain.probe_tasks import TASKS
from ship.pretrain.train import Trainer
from ship.vit import timm
from tests.unit.ship.pretrain.tiny import TINY

RESULT = ProbeResult(
    task="stripes", num_train=7, num_test=9, linear=0.875, linear_untrained=0.5, knn=0.75, knn_untrained=0.25
)


def test_what_was_trained_is_what_timm_loads(tmp_path: Path) -> None:
    trainer = Trainer(TINY)
    trainer.run_step()
    export_backbone(trainer, tmp_path)
    write_probe([RESULT], [0, 1], tmp_path)

    vit = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    trained, untrained = load_exported(tmp_path, seed=TINY.seed)

    for name, weight in trainer.vit.state_dict().items():
        assert torch.equal(weight.half().float(), vit.state_dict()[name]), name
        assert torch.equal(weight.half().float(), trained.state_dict()[name]), name
    assert not torch.equal(untrained.pos_embed, trained.pos_embed)
    files = ["README.md", "config.json", "model.safetensors", "probe.json", "training.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert "| stripes | 7 | 9 | 0.875 | 0.500 | 0.750 | 0.250 |" in (tmp_path / "README.md").read_text()


def test_table_has_a_line_for_each_task() -> None:
    assert [line.split()[0] for line in format_table([RESULT, RESULT]).splitlines()] == [
        "task",
        *["stripes"] * 2,
    ]


@pytest.mark.parametrize("name", list(TASKS))
def test_probe_tasks_are_fair(name: str) -> None:
    task, again = TASKS[name](0), TASKS[name](0)

    assert np.array_equal(task.train_BHW, again.train_BHW)
    assert len(task.train_BHW) == len(task.train_labels_B)
    assert len(task.test_BHW) == len(task.test_labels_B)
    assert set(task.train_labels_B) == set(task.test_labels_B)
    assert task.train_BHW.min() >= 0
    assert task.train_BHW.max() <= 1
    seen = {image_HW.tobytes() for image_HW in task.train_BHW}
    assert not any(image_HW.tobytes() in seen for image_HW in task.test_BHW)
