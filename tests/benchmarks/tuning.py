"""Speed and peak memory of a tuning step: SHIP written plainly, ours alone and in packs, and others' ways.

Ratios are per image: a pack of 8 does the work of eight steps. Evaluation and preparation count only with
``--long``.
"""

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ship.backbone import Backbone
from ship.precision import compute_dtype
from ship.settings.config import TuneConfig
from ship.tuning.member import PackTask
from ship.tuning.pack import Pack
from ship.tuning.run import tune
from tests.benchmarks.harness import Case, Report, compare, compute_clock, peak_bytes
from tests.benchmarks.lora import RANK, LoraTasks
from tests.benchmarks.naive import naive_loss
from tests.benchmarks.synthetic import (
    VIT_B,
    as_of_timm,
    default_k,
    find_backbone,
    make_data,
    make_prompt,
)

__all__ = ["LEGEND", "make_step", "run", "run_long"]

LEGEND = {
    "naive": "prompt tokens through every block for every sample, float32, AdamW",
    "ours": "one task, float32",
    "ours bf16": "one task, bfloat16",
    "pack of T": "T tasks a step, float32",
    "pack of T bf16": "T tasks a step, bfloat16",
    "lora": "PEFT LoRA, rank 8 on qkv, one task, float32, AdamW",
    "fine-tuning": "every weight of the backbone, one task, float32, AdamW",
    "prompt": "ours without attribute tokens",
    "low rank": "ours, rank 8 on qkv and no prompt",
    "layer head": "as prompt, with a head over four layers",
    "full": "as layer head, with rank 8 on qkv",
}
_KINDS: dict[str, dict[str, object]] = {
    "prompt": {"num_attribute": 0},
    "low rank": {"num_attribute": 0, "kind": "lora", "rank": RANK},
    "layer head": {"num_attribute": 0, "head": "layers"},
    "full": {"num_attribute": 0, "kind": "ship+lora", "rank": RANK, "head": "layers"},
}
NUM_CLASSES = 10
_ROOT = Path(__file__).parents[2]
# A task of the paper's size, for tasks an hour.
TASK_IMAGES, TASK_EPOCHS = 1_000, 100
_GOALS = {VIT_B: 1.3}


def run(
    report: Report,
    *,
    names: list[str],
    batch: int,
    packs: list[int],
    rounds: int,
    device: torch.device,
    with_memory: bool = True,
) -> None:
    """Measure steps of every backbone; memory in a separate process for each row."""
    halves = [""] + [" bf16"] * (compute_dtype("auto", device) == torch.bfloat16)
    for name in names:
        rows, work = {}, {}
        backbone = find_backbone(name, device)
        wanted = ["naive", *(f"ours{half}" for half in halves)]
        wanted += [f"pack of {size}{half}" for half in halves for size in packs]
        wanted += ["lora", "fine-tuning", *_KINDS]
        for row in wanted:
            try:
                rows[row] = make_step(row, backbone, name, batch)
            except ImportError as error:
                report.skipped.append(f"{row}: {error}")
                continue
            work[row] = float(batch * _pack_size(row))
        pairs = [("ours", "naive", _GOALS.get(name))]
        pairs += [(row, "naive", None) for row in rows if row.startswith(("ours ", "pack"))]
        pairs += [(row, "ours" + row[9:], None) for row in rows if row.startswith("pack")]
        pairs += [("ours", "lora", None)]
        pairs += [(row, "fine-tuning", None) for row in ("lora", "ours", *_KINDS)]
        clock = compute_clock(device)
        settings = {"backbone": name, "batch": batch, "K": default_k(name), "clock": clock.__name__}
        case = compare(rows, pairs, settings=settings, rounds=rounds, device=device, work=work, clock=clock)
        facts = {f"tasks an hour, {row}": _tasks_an_hour(s) for row, s in case.seconds.items()}
        if with_memory:
            facts |= {f"peak MiB, {row}": _peak_mib(row, name, batch, device) for row in rows}
        report.add(_with_facts(case, facts))


def run_long(report: Report, *, name: str, device: torch.device) -> None:
    """One task of 1,000 images and 100 epochs from start to end, beside as many naive steps."""
    backbone = find_backbone(name, device)
    data = make_data(backbone, TASK_IMAGES, seed=0)
    config = TuneConfig(num_independent=default_k(name), start="published", learning_rate=1e-3)
    naive = make_step("naive", backbone, name, config.batch_size)
    num_steps = TASK_EPOCHS * -(-TASK_IMAGES // config.batch_size)
    rows = {"whole task": lambda: tune(backbone, data, config), "naive": naive}
    report.add(
        compare(
            rows,
            [("whole task", "naive", 10.0 if device.type == "cuda" else None)],
            settings={"backbone": name, "images": TASK_IMAGES, "epochs": TASK_EPOCHS, "per": "step"},
            rounds=1,
            device=device,
            work={"whole task": num_steps},
        )
    )


def make_step(row: str, backbone: Backbone, name: str, batch: int) -> Callable[[], object]:
    """One optimizer step of a row, to be timed.

    Raises:
        ImportError: PEFT is not installed.
    """
    if row == "naive":
        return _naive_step(as_of_timm(backbone), name, batch)
    if row == "lora":
        return _lora_step(as_of_timm(backbone), batch)
    if row == "fine-tuning":
        return _fine_tuning_step(backbone, batch)
    precision = "bfloat16" if row.endswith("bf16") else "float32"
    settings: dict[str, object] = {"num_attribute": min(10, backbone.info.num_tokens), **_KINDS.get(row, {})}
    config = TuneConfig(
        num_independent=default_k(name),
        batch_size=batch,
        epochs=100_000,
        precision=precision,
        start="published",
        learning_rate=1e-3,
        max_hierarchy_images=64,
        **settings,
    )
    size = _pack_size(row)
    # Shared images: steps take as long, and the images are prepared once.
    data = make_data(backbone, max(32, batch), seed=0)
    tasks = [PackTask(data=data, config=replace(config, seed=seed)) for seed in range(size)]
    pack = Pack(backbone, tasks, memory_bytes=1 << 50)
    assert len(pack) == size, pack.outcomes
    return pack.step


def _naive_step(backbone: Backbone, name: str, batch: int) -> Callable[[], object]:
    data = make_data(backbone, batch, seed=0)
    prompt = make_prompt(backbone, 0, default_k(name), NUM_CLASSES)
    optimizer = torch.optim.AdamW([w for w in prompt.parameters() if w.requires_grad], lr=1e-3)
    labels_B = data.train.labels_B.to(backbone.device)

    def step() -> None:
        loss = naive_loss(backbone, prompt, backbone.normalise(data.train.images_B3HW), labels_B)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _lora_step(backbone: Backbone, batch: int) -> Callable[[], object]:
    data = make_data(backbone, batch, seed=0)
    lora = LoraTasks(backbone, 1, NUM_CLASSES)
    optimizer = torch.optim.AdamW(lora.train_first(), lr=1e-3)
    labels_B = data.train.labels_B.to(backbone.device)

    def step() -> None:
        loss = lora.loss(data.train.images_B3HW, labels_B)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _fine_tuning_step(backbone: Backbone, batch: int) -> Callable[[], object]:
    data = make_data(backbone, batch, seed=0)
    head = torch.nn.Linear(backbone.info.width, NUM_CLASSES, device=backbone.device)
    vit = copy.deepcopy(backbone.vit).requires_grad_(True)
    optimizer = torch.optim.AdamW([*vit.parameters(), *head.parameters()], lr=1e-3)
    labels_B = data.train.labels_B.to(backbone.device)

    def step() -> None:
        scores_BC = head(vit(backbone.normalise(data.train.images_B3HW)))
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(scores_BC, labels_B).backward()
        optimizer.step()

    return step


def _pack_size(row: str) -> int:
    return int(row.split()[2]) if row.startswith("pack") else 1


def _tasks_an_hour(seconds_an_image: float) -> float:
    return round(3600.0 / (seconds_an_image * TASK_IMAGES * TASK_EPOCHS), 3)


def _with_facts(case: Case, facts: dict[str, object]) -> Case:
    return Case(
        settings=case.settings, rounds=case.rounds, seconds=case.seconds, ratios=case.ratios, facts=facts
    )


def _peak_mib(row: str, name: str, batch: int, device: torch.device) -> int | None:
    command = [sys.executable, "-m", "tests.benchmarks.tuning", row, name, str(batch), str(device)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=_ROOT)
    return int(done.stdout) >> 20 if done.stdout.strip() != "None" else None


def main(row: str, name: str, batch: int, device: str) -> None:
    """Print the peak memory of two steps; the first one allocates the optimizer's state."""
    step = make_step(row, find_backbone(name, torch.device(device)), name, batch)

    def twice() -> None:
        step()
        step()

    print(peak_bytes(twice, torch.device(device)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
