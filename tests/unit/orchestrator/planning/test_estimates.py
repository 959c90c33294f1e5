import pytest

from orchestrator.planning.estimates import Speed, TuningRun, learn_speed


def test_speed_is_the_median_of_past_runs() -> None:
    runs = [
        TuningRun(task_key=f"{number:064x}", num_passes=1000, tuning_s=seconds, time_s=0.0)
        for number, seconds in enumerate((10.0, 20.0, 10_000.0))
    ]

    assert learn_speed(runs) == Speed(images_per_s=50.0, num_runs=3)
    assert learn_speed([]) is None


def test_a_run_from_what_an_artifact_says() -> None:
    metrics = {"num_train": 100, "epochs": 30.0, "tuning_s": 12.5, "accuracy": 0.9}

    assert TuningRun.from_metrics("a" * 64, metrics, 7.0) == TuningRun(
        task_key="a" * 64, num_passes=3000, tuning_s=12.5, time_s=7.0
    )


@pytest.mark.parametrize(
    "change",
    [{"tuning_s": 0.0}, {"tuning_s": float("nan")}, {"epochs": 0}, {"epochs": "many"}, {"num_train": None}],
)
def test_what_tells_nothing_is_no_run(change: dict[str, object]) -> None:
    metrics = {"num_train": 100, "epochs": 30, "tuning_s": 12.5, **change}

    assert TuningRun.from_metrics("a" * 64, metrics, 7.0) is None
    assert TuningRun.from_metrics("a" * 64, {}, 7.0) is None
