"""Memory of a node: the same tasks on one, two and four workers, with a large backbone.

Memory is PSS: a page that processes share counts once.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.fleet.job import JobOptions
from tests.benchmarks.fleet.tasks import Fleet, write_fleet
from tests.benchmarks.fleet.watch import run_fleet_job
from tests.benchmarks.harness import Case, Report
from tests.factories import write_backbone

__all__ = ["LargeBackbone", "measure_memory"]

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class LargeBackbone:
    """A backbone of random weights, by default of ViT-B's size."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    pixels: int = 64

    @classmethod
    def quick(cls) -> "LargeBackbone":
        """A small backbone that shows whether the benchmark runs."""
        return cls(width=32, depth=2, heads=2, pixels=32)

    def write(self, folder: Path) -> int:
        """Write it in timm's layout; returns the size of its float32 weights in bytes."""
        vit = write_backbone(
            folder,
            img_size=self.pixels,
            patch_size=16,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
        )
        return sum(weight.nbytes for weight in vit.state_dict().values())


def measure_memory(report: Report, backbone: LargeBackbone, counts: tuple[int, ...] = (1, 2, 4)) -> None:
    """Peak memory by number of workers."""
    facts: dict[str, Any] = {}
    seconds = {}
    for num_workers in counts:
        with tempfile.TemporaryDirectory(prefix="ship-fleet-") as name:
            folder = Path(name)
            settings = {"epochs": 2, "num_attribute": 4, "batch_size": 8}
            weights_bytes = backbone.write(folder / "backbone")
            write_fleet(folder, Fleet(num_tasks=2 * max(counts), settings=settings, backbone="./backbone"))
            options = JobOptions(num_workers=num_workers, pack=1)
            watched = run_fleet_job(folder, options, with_shared=True)
            assert not watched.result["failed"], watched.result
            seconds[f"{num_workers} workers"] = watched.wall_s
            facts[f"{num_workers} workers, MiB"] = {
                "workers": watched.peak_mib("workers"),
                "all processes": watched.peak_mib("driver", "ledger", "workers", "services"),
            }
            facts["weights, MiB"] = round(weights_bytes / MIB)
    few, many = (facts[f"{count} workers, MiB"]["all processes"] for count in (counts[0], counts[-1]))
    facts["each more worker, MiB"] = round((many - few) / (counts[-1] - counts[0]))
    report.add(Case(settings={"part": "memory"}, rounds=1, seconds=seconds, ratios=[], facts=facts))
