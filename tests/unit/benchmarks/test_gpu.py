"""The run for a GPU: right on a CPU, without packages that a bare machine lacks, and safe to cut off."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import gpu, modes
from tests.benchmarks.precision import Answers, compare_answers, products_of

CPU = torch.device("cpu")
# What a machine with torch, timm and scikit-learn may lack.
_LACKING = {
    *("boto3", "click", "fastapi", "httpx", "mlflow", "peft"),
    *("pydantic", "ray", "rich", "skimage", "sqlalchemy", "tenacity"),
}
_BLOCKED = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_LACKING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Blocked())
from tests.benchmarks.gpu import main
sys.exit(main(["--dry", "--json", sys.argv[1], *sys.argv[2:]]))
"""


def test_a_dry_run_measures_every_part_without_ray_or_mlflow(tmp_path: Path) -> None:
    target, root = tmp_path / "gpu.json", Path(__file__).parents[3]
    # The tests on a GPU are a run of pytest, and the precision's part tunes: both have tests of their own.
    names = ["modes", "engine", "residency", "runtime", "tuning"]
    flags = [flag for name in names for flag in ("--part", name)]
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKED, str(target), *flags], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = json.loads(target.read_text())
    assert written["dry"] is True
    assert written["machine"]["torch"] == torch.__version__
    assert {name: part["status"] for name, part in written["parts"].items()} == dict.fromkeys(names, "ok")
    for part in written["parts"].values():
        assert part["cases"]
        gpu.check(part)
    rows = written["parts"]["modes"]["cases"][0]
    assert set(rows["seconds"]) == set(modes.LEGEND)
    # The same kernels on a CPU: captured and compiled blocks give the very same answers.
    assert [rows["facts"][f"difference, {row}"] for row in modes.LEGEND] == [0.0] * len(modes.LEGEND)
    assert written["parts"]["residency"]["cases"][0]["facts"]["tasks"] == gpu.DRY.tasks
    assert any("peft" in reason for reason in written["parts"]["runtime"]["skipped"])


def test_what_was_measured_is_written_before_the_next_part_and_kept_if_one_is_cut_off(tmp_path: Path) -> None:
    now_s, target = 0.0, tmp_path / "gpu.json"
    seen: list[list[str]] = []
    limits_s: dict[str, float] = {}

    def measure(name: str, limit_s: float, own: str) -> tuple[str, str]:
        nonlocal now_s
        limits_s[name] = limit_s
        seen.append(list(json.loads(target.read_text())["parts"]) if target.exists() else [])
        Path(own).write_text(json.dumps({"cases": [{"of": name}], "machine": {}}))
        now_s += 80.0
        return ("cut off after 70 s", "half way") if name == "engine" else ("ok", "")

    names = ["modes", "engine", "residency", "runtime"]
    written = gpu.measure_all(
        target, measure, facts={"dry": True}, names=names, limit_s=200.0, clock=lambda: now_s
    )
    assert written == json.loads(target.read_text())
    assert seen == [[], ["modes"], ["modes", "engine"]]
    assert limits_s == {"modes": gpu.PARTS["modes"].limit_s, "engine": 50.0, "residency": 40.0}
    assert written["parts"]["engine"] == {
        "status": "cut off after 70 s",
        "seconds": 80.0,
        "cases": [{"of": "engine"}],
        "last line": "half way",
    }
    assert written["parts"]["runtime"]["status"] == "skipped: no time was left"


@pytest.mark.parametrize(
    ("script", "limit_s", "status"),
    [
        ("print('done')", 60.0, "ok"),
        ("import sys; print('done'); sys.exit(3)", 60.0, "failed (3)"),
        ("print('done', flush=True); import time; time.sleep(3600)", 2.0, "cut off after 2 s"),
    ],
)
def test_a_part_is_a_process_that_is_ended_at_its_limit(script: str, limit_s: float, status: str) -> None:
    found, last = gpu.run_command([sys.executable, "-c", script], limit_s)
    assert found == status
    # Cut off, it may not have come to its first line.
    assert last in ("done", "") if "cut" in status else last == "done"


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_figures_that_are_none_fail_a_part(value: float) -> None:
    case: dict[str, Any] = {"seconds": {"bare": 1.0}, "ratios": [{"of": "a", "against": "b", "speed": 1.0}]}
    gpu.check({"benchmark": "modes", "cases": [case], "skipped": []})
    with pytest.raises(ArithmeticError, match="modes: expected numbers above 0, found bare"):
        gpu.check({"benchmark": "modes", "cases": [{**case, "seconds": {"bare": value}}], "skipped": []})
    bad = {**case, "ratios": [{"of": "a", "against": "b", "speed": value}]}
    with pytest.raises(ArithmeticError, match="a / b"):
        gpu.check({"benchmark": "modes", "cases": [bad], "skipped": []})
    with pytest.raises(ArithmeticError, match="measured nothing"):
        gpu.check({"benchmark": "modes", "cases": [], "skipped": []})


def test_answers_of_two_ways_that_differ_by_more_than_rounding_fail_it() -> None:
    wanted = [torch.tensor([1.0, 3.0])]
    assert modes.check_alike([torch.tensor([1.0, 3.2])], wanted, torch.bfloat16) == pytest.approx(0.05)
    for wrong in (torch.tensor([3.0, 1.0]), torch.tensor([1.0, math.nan])):
        with pytest.raises(ArithmeticError, match="in bfloat16"):
            modes.check_alike([wrong], wanted, torch.bfloat16)


def test_changed_labels_and_decisions_are_counted_apart() -> None:
    wanted = Answers(
        logits_BC=torch.tensor([[2.0, 0.0], [0.0, 1.0]]), labels=[0, 1], decisions=["good", "unsure cost"]
    )
    found = Answers(
        logits_BC=torch.tensor([[2.0, 0.1], [0.0, 0.5]]), labels=[0, 1], decisions=["good", "bad"]
    )
    assert compare_answers(found, wanted) == {"labels": 0.0, "decisions": 0.5, "scores": 0.5}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_products_without_instructions_for_them_round_once_as_on_a_gpu(dtype: torch.dtype) -> None:
    x_BD, weight_CD = (
        torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows)) for rows in (3, 5)
    )
    bias_C = torch.ones(5)
    half = [each.to(dtype) for each in (x_BD, weight_CD, bias_C)]
    with products_of(dtype, CPU):
        found_BC = torch.nn.functional.linear(*half)
    wanted_BC = torch.nn.functional.linear(*(each.float() for each in half))
    assert found_BC.dtype == dtype
    # Half a unit in the last place.
    torch.testing.assert_close(found_BC.float(), wanted_BC, rtol=torch.finfo(dtype).eps / 2, atol=0)
