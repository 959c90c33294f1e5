"""LoRA as the benchmarks run it."""

import torch

from tests.benchmarks.lora import LoraTasks
from tests.benchmarks.synthetic import find_backbone, make_images


def test_lora_rows_are_answered_by_their_own_adapters() -> None:
    torch.manual_seed(0)
    backbone = find_backbone("tiny", torch.device("cpu"))
    lora, images = LoraTasks(backbone, 3), make_images(backbone, 3)
    with torch.inference_mode():
        mixed = lora.infer(images, [0, 1, 2])
        alone = [lora.infer(images[row : row + 1], [row])[0] for row in range(3)]
        other = lora.infer(images, [1, 1, 1])
    torch.testing.assert_close(mixed, torch.stack(alone), atol=1e-5, rtol=0)
    assert not torch.allclose(mixed[0], other[0], atol=1e-3)
