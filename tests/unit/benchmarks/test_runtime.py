"""The rows that are timed compute the same scores, or what each stands for."""

import torch

from ship.method.model import forward
from tests.benchmarks.harness import Report
from tests.benchmarks.naive import naive_forward
from tests.benchmarks.runtime import make_rows
from tests.benchmarks.synthetic import find_backbone, make_images, make_prompt


def test_all_rows_of_the_runtime_benchmark_compute_what_they_stand_for() -> None:
    torch.manual_seed(0)
    backbone = find_backbone("tiny", torch.device("cpu"))
    report = Report(benchmark="runtime", legend={})
    batch, images = 3, make_images(backbone, 3)
    with torch.inference_mode():
        rows = make_rows(backbone, torch.float32, batch, 10, report)
        mixed = rows["d mixed"]()
        for row in range(batch):
            prompt = make_prompt(backbone, row, 10)
            expected, _ = naive_forward(backbone, prompt, backbone.normalise(images[row : row + 1]))
            # Float32 sums in another order.
            torch.testing.assert_close(mixed[row], expected[0], atol=1e-4, rtol=0)
            full = make_prompt(backbone, row, 10, kind="ship+lora", rank=8, head="layers", num_attribute=0)
            scores_BC = forward(backbone, full, backbone.normalise(images[row : row + 1])).logits_BC
            torch.testing.assert_close(rows["j full"]()[row], scores_BC[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(rows["b naive"](), torch.cat(rows["f swapped"]()), atol=1e-4, rtol=0)
    assert report.skipped == []
