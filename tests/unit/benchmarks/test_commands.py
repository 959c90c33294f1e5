"""The benchmarks run, measure what they say, and their yardstick is the method. Times are never asserted."""

import json
from pathlib import Path

import pytest
import torch

from orchestrator.cli import bench
from orchestrator.cli.main import cli
from orchestrator.errors import OrchestratorError
from orchestrator.events import Event
from tests.benchmarks.__main__ import main
from tests.benchmarks.fleet.account import growth_kb, make_account
from tests.benchmarks.fleet.watch import Sample
from tests.benchmarks.harness import Report, compare, peak_bytes
from tests.benchmarks.lora import LoraTasks
from tests.benchmarks.naive import naive_forward
from tests.benchmarks.runtime import make_rows
from tests.benchmarks.synthetic import find_backbone, make_images, make_prompt
from tests.unit.ship.method.golden import FORWARD, TOLERANCE, Case, relative_error

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def float32_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows on every machine."""
    monkeypatch.setattr("tests.benchmarks.runtime.compute_dtype", lambda *_: torch.float32)
    monkeypatch.setattr("tests.benchmarks.tuning.compute_dtype", lambda *_: torch.float32)


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_the_naive_forward_is_the_method(path: Path) -> None:
    case = Case(path)
    logits, matching = naive_forward(case.backbone, case.prompt, case.images)
    expect = case.named("expect.")
    assert relative_error(logits, expect["logits"]) < TOLERANCE
    assert relative_error(matching, expect["matching_loss"]) < TOLERANCE


def test_all_rows_of_the_runtime_benchmark_compute_what_they_stand_for() -> None:
    torch.manual_seed(0)
    backbone = find_backbone("tiny", CPU)
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
        torch.testing.assert_close(rows["b naive"](), torch.cat(rows["f swapped"]()), atol=1e-4, rtol=0)
    assert report.skipped == []


def test_lora_rows_are_answered_by_their_own_adapters() -> None:
    torch.manual_seed(0)
    backbone = find_backbone("tiny", CPU)
    lora, images = LoraTasks(backbone, 3), make_images(backbone, 3)
    with torch.inference_mode():
        mixed = lora.infer(images, [0, 1, 2])
        alone = [lora.infer(images[row : row + 1], [row])[0] for row in range(3)]
        other = lora.infer(images, [1, 1, 1])
    torch.testing.assert_close(mixed, torch.stack(alone), atol=1e-5, rtol=0)
    assert not torch.allclose(mixed[0], other[0], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("runtime", {"a bare", "b naive", "c one task", "d mixed", "e lora", "f swapped"}),
        ("residency", {"of 1", "of 20"}),
        ("tuning", {"naive", "ours", "pack of 2", "lora"}),
        ("store", {"publish", "fetch", "write checkpoint", "read checkpoint"}),
    ],
)
def test_every_benchmark_runs_and_writes_what_it_measured(name: str, rows: set[str], tmp_path: Path) -> None:
    main([name, "--quick", "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["benchmark"] == name
    assert report["machine"]["torch"] == torch.__version__
    for case in report["cases"]:
        assert all(seconds > 0 for seconds in case["seconds"].values())
        assert all(0 < ratio["low"] <= ratio["speed"] <= ratio["high"] for ratio in case["ratios"])
    assert set(report["cases"][0]["seconds"]) == rows
    if name == "store":
        facts = report["cases"][0]["facts"]
        assert facts["prompt bytes"] < facts["checkpoint bytes"]


def test_a_fleet_is_planned_with_one_listing_whether_its_tasks_are_found_or_listed(tmp_path: Path) -> None:
    main(["fleet", "--quick", "--part", "plan", "--tasks", "30", "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert [case["settings"]["manifest"] for case in report["cases"]] == ["found", "listed"]
    for case in report["cases"]:
        assert case["settings"]["tasks"] == 30
        assert case["facts"]["store"] == {"list": 1, "get": 1}
        assert set(case["seconds"]) == {"whole command", "plan", "print"}


def test_an_unknown_part_of_the_fleet_is_refused() -> None:
    with pytest.raises(SystemExit, match="part naps: expected one of overhead, plan"):
        main(["fleet", "--part", "naps"])


def test_an_account_tells_where_the_time_of_workers_went() -> None:
    def event(kind: str, task: str, time_s: float, **data: object) -> Event:
        return Event(kind=kind, task=task, key="k", attempt=1, time_s=time_s, data=data)

    events = [
        event("leased", "a", 110.0),
        event("leased", "b", 111.0),
        event("published", "a", 114.0, metrics={"tuning_s": 3.0}),
        event("published", "b", 118.0, metrics={"tuning_s": 5.0}),
    ]
    account = make_account(events, began_s=100.0, ended_s=120.0, num_workers=2)
    assert (account.start_up_s, account.work_s, account.tail_s) == (10.0, 8.0, 2.0)
    assert account.breakdown() == {
        "start-up": 10.0,
        "tuning": 4.0,
        "beside tuning": 4.0,
        "after the last publication": 2.0,
    }
    assert sum(account.breakdown().values()) == account.run_s * 2 / 2


def test_growth_is_told_from_a_tenth_of_the_tasks_on() -> None:
    samples = [Sample(time_s=float(second), kb={"driver": 1000.0 + 10 * second}) for second in range(101)]
    published_s = [float(second) for second in range(1, 101)]
    assert growth_kb(samples, published_s, "driver") == (1110.0, 2000.0)
    assert growth_kb(samples, published_s, "ledger") == (0.0, 0.0)


def test_ratios_are_paired_by_round_and_per_unit_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000_000))
    now = 0.0

    def tick() -> float:
        return now

    def take(seconds: float):
        def call() -> None:
            nonlocal now
            # The machine slows down all the time; what is paired does not mind.
            now += seconds * (1 + 0.01 * next(clock))

        return call

    monkeypatch.setattr("time.perf_counter", tick)
    case = compare(
        {"slow": take(4.0), "fast": take(1.0), "double": take(4.0)},
        [("fast", "slow", 3.0), ("double", "slow", None), ("absent", "slow", None)],
        settings={},
        rounds=5,
        device=CPU,
        work={"double": 2.0},
    )
    fast, double = case.ratios
    assert fast.speed == pytest.approx(4.0, rel=0.05)
    assert fast.goal == 3.0
    assert double.speed == pytest.approx(2.0, rel=0.05)


def test_peak_memory_counts_what_a_call_takes() -> None:
    found = peak_bytes(lambda: torch.ones(64 << 20, dtype=torch.uint8).sum(), CPU)
    assert found is None or found >= 60 << 20


def test_peak_memory_counts_again_what_an_earlier_call_has_freed() -> None:
    def take_many_pieces() -> int:
        # Each too small to be given back by itself.
        return sum(len(piece) for piece in [torch.ones(1 << 20, dtype=torch.uint8) for _ in range(64)])

    found = [peak_bytes(take_many_pieces, CPU) for _ in range(2)]
    assert found[1] is None or found[1] >= 50 << 20


def test_the_command_hands_its_arguments_on(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    arguments = ["bench", "residency", "--quick", "--rounds", "1", "--json", str(target)]
    cli(arguments, standalone_mode=False)
    assert json.loads(target.read_text())["cases"][0]["rounds"] == 1


def test_without_a_checkout_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.ship, "__file__", str(tmp_path / "site-packages" / "ship" / "__init__.py"))
    with pytest.raises(OrchestratorError, match="clone the repository"):
        bench.run_benchmark(["runtime"])
