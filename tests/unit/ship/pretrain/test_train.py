from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ship.errors import ConfigError
from ship.pretrain.config import TrainConfig
from ship.pretrain.train import Trainer
from tests.unit.ship.pretrain.tiny import TINY


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in trainer.vit.state_dict().items()}


def test_a_few_steps_lower_both_losses() -> None:
    trainer = Trainer(TINY.with_steps(24))

    history = [trainer.run_step() for _ in range(24)]

    first, last = history[:3], history[-3:]
    assert sum(now.patch_loss for now in last) < 0.9 * sum(now.patch_loss for now in first)
    assert sum(now.image_loss for now in last) < sum(now.image_loss for now in first)
    assert history[-1].step == 24
    assert history[-1].cpu_s > 0


def test_labels_of_what_was_drawn_are_learned_if_asked_for() -> None:
    trainer = Trainer(replace(TINY.with_steps(24), content_weight=3.0))
    history = [trainer.run_step().content_loss for _ in range(24)]
    assert sum(history[-3:]) < 0.8 * sum(history[:3])


def test_what_has_no_weight_gets_no_gradient() -> None:
    trainer = Trainer(TINY)
    assert trainer.run_step().content_loss == 0.0
    heads = {name: weight.grad is None for name, weight in trainer._model.named_parameters()}
    assert heads["contents_head.weight"]
    assert heads["projector.0.weight"]
    assert not heads["image_head.weight"]


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    whole = Trainer(TINY)
    expected = [whole.run_step() for _ in range(4)]

    part = Trainer(TINY)
    for _ in range(stop_after):
        part.run_step()
    part.save(tmp_path / "checkpoint.safetensors")
    del part
    resumed = Trainer.resume(tmp_path / "checkpoint.safetensors")
    found = [resumed.run_step() for _ in range(4 - stop_after)]

    assert [now.patch_loss for now in found] == [now.patch_loss for now in expected[stop_after:]]
    assert [now.image_loss for now in found] == [now.image_loss for now in expected[stop_after:]]
    for name, weight in _weights(whole).items():
        assert torch.equal(weight, _weights(resumed)[name]), name


def test_saving_leaves_one_file_and_replaces_the_old_one(tmp_path: Path) -> None:
    trainer = Trainer(TINY)
    file = tmp_path / "deeper" / "checkpoint.safetensors"
    for _ in range(2):
        trainer.run_step()
        trainer.save(file)

    assert [path.name for path in file.parent.iterdir()] == ["checkpoint.safetensors"]
    assert Trainer.resume(file).step == 2


def test_length_can_change_on_resuming(tmp_path: Path) -> None:
    Trainer(TINY).save(tmp_path / "checkpoint.safetensors")

    trainer = Trainer.resume(tmp_path / "checkpoint.safetensors", num_steps=50)

    assert trainer.config == TINY.with_steps(50)


def test_checkpoints_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    foreign, garbage = tmp_path / "foreign.safetensors", tmp_path / "garbage.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    garbage.write_bytes(b"\x00" * 5)

    for file in (foreign, garbage, tmp_path / "missing.safetensors"):
        with pytest.raises(ConfigError, match="expected a checkpoint"):
            Trainer.resume(file)


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Trainer(TINY).run_step()

    assert torch.equal(torch.rand(3), expected)


def test_learning_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(num_steps=1000, num_warmup=100, decay_share=0.2, learning_rate=1.0)

    assert config.learning_rate_at(0) == pytest.approx(0.01)
    assert config.learning_rate_at(100) == config.learning_rate_at(800) == 1.0
    assert config.learning_rate_at(900) == pytest.approx(0.5)
    assert config.learning_rate_at(999) == pytest.approx(0.005)
    assert config.with_steps(2000).learning_rate_at(900) == 1.0


def test_config_survives_json() -> None:
    assert TrainConfig.from_dict(TINY.to_dict()) == TINY
    seeds = {
        TINY.seed_for(stream, i) for stream in ("images", "order", "masks", "calibration") for i in range(50)
    }
    assert len(seeds) == 200
