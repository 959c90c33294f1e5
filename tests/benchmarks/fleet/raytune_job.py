"""Ray Tune with a trial a task, each with its own copy of the backbone.

``python -m tests.benchmarks.fleet.raytune_job FOLDER OPTIONS`` tunes the fleet in the folder with the
function, settings and data of the main job, one CPU a trial. A trial writes its artifact to a folder and
reports its metrics. There is no store, registry, gate or tracking.
"""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

import ship.tuning
from ship.artifact.making import make_artifact
from ship.backbone import load_backbone
from ship.data import load_task_data
from tests.benchmarks.fleet.job import RESULT
from tests.benchmarks.fleet.tasks import read_fleet

__all__: list[str] = []


def tune_one(trial: dict[str, Any]) -> None:
    """Tune one task as a trial."""
    began_s = time.time()
    torch.set_num_threads(1)
    entry = trial["task"]
    backbone = load_backbone(trial["backbone"])
    data = load_task_data(entry.source, image_size=backbone.image_size, interpolation=backbone.interpolation)
    loaded_s = time.time()
    result = ship.tuning.run(backbone, data, entry.config)
    target = Path(trial["target"], entry.name)
    target.mkdir(parents=True)
    for name, content in make_artifact(entry.name, backbone, data, result).items():
        (target / name).write_bytes(content)
    tune.report(
        {
            "accuracy": result.evaluation.accuracy,
            "tuning_s": result.tuning_s,
            "load_s": loaded_s - began_s,
            "began_s": began_s,
            "ended_s": time.time(),
        }
    )


def main(folder: Path, options: dict[str, Any]) -> None:
    """Run all trials, and write their metrics to ``result.json``."""
    manifest = read_fleet(folder)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ship-ray-", ignore_cleanup_errors=True) as temporary:
        ray.init(
            address="local",
            num_cpus=options["num_workers"],
            include_dashboard=False,
            log_to_driver=False,
            logging_level="WARNING",
            _temp_dir=temporary,
        )
        began_s = time.time()
        space = {
            "task": tune.grid_search(list(manifest.tasks)),
            "backbone": manifest.backbone,
            "target": str(folder / "artifacts"),
        }
        grid = tune.Tuner(
            tune.with_resources(tune_one, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(reuse_actors=options["reuse_actors"]),
            run_config=tune.RunConfig(name="trials", storage_path=str(folder / "trials"), verbose=0),
        ).fit()
        trials = [dict(result.metrics) for result in grid if result.error is None]
        facts = {"began_s": began_s, "ended_s": time.time(), "num_done": len(trials)}
        kept = ("tuning_s", "load_s", "began_s", "ended_s")
        rows = [{name: trial[name] for name in kept} for trial in trials]
        (folder / RESULT).write_text(json.dumps({**facts, "trials": rows}))
        ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
