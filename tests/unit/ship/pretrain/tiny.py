"""Settings of pretraining that end in seconds."""

from ship.pretrain.config import Architecture, TrainConfig

__all__ = ["TINY"]

TINY = TrainConfig(
    num_steps=6,
    num_warmup=1,
    batch_size=16,
    learning_rate=3e-3,
    pool_size=32,
    num_uses=1,
    num_calibration=64,
    num_axes=16,
    architecture=Architecture(img_size=32, embed_dim=32, depth=2, num_heads=2),
)
