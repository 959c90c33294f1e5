"""Few tasks are told apart, those that are asked often, and none loses its label."""

from collections import Counter

from prometheus_client import CollectorRegistry, generate_latest

from orchestrator.serve.engine_api import ResidencyStats
from orchestrator.serve.ingress.middleware.metrics import ResidencyMetrics, TaskLabels


def test_a_task_that_is_asked_often_gets_a_label_and_keeps_it():
    labels = TaskLabels(max_labels=2, min_asked=3)
    assert [labels.label("bolts") for _ in range(4)] == ["other", "other", "bolts", "bolts"]
    assert [labels.label(f"rare-{number}") for number in range(100)] == ["other"] * 100
    assert [labels.label("nuts") for _ in range(3)] == ["other", "other", "nuts"]
    assert [labels.label("gears") for _ in range(9)] == ["other"] * 9
    assert [labels.label(task) for task in ("bolts", "nuts")] == ["bolts", "nuts"]


def test_thousands_of_tasks_make_no_more_labels():
    labels = TaskLabels()
    found = Counter(labels.label(f"task-{number % 3000}") for number in range(60_000))
    assert len(found) == 51
    assert found["other"] > 50_000


def stats(replica: str, num_swaps: int, catalog_age_s: float | None = 1.0) -> ResidencyStats:
    return ResidencyStats(
        replica=replica,
        num_loads=0,
        num_load_failures=0,
        num_evictions=0,
        num_swaps=num_swaps,
        num_catalog_tasks=0,
        num_resident=0,
        resident_bytes=0,
        catalog_age_s=catalog_age_s,
        backbone="vit",
    )


def test_engines_are_told_apart_and_forgotten_when_they_are_gone():
    now_s = 0.0
    metrics, registry = ResidencyMetrics(lambda: now_s), CollectorRegistry()
    registry.register(metrics)
    metrics.note(stats("a", 1))
    metrics.note(stats("b", 5, catalog_age_s=None))
    metrics.note(stats("a", 2))
    page = generate_latest(registry).decode().splitlines()
    assert 'ship_swaps_total{backbone="vit",engine="a"} 2.0' in page
    assert 'ship_swaps_total{backbone="vit",engine="b"} 5.0' in page
    assert 'ship_catalog_age_seconds{backbone="vit",engine="a"} 1.0' in page
    assert not any("catalog_age" in line and 'engine="b"' in line for line in page)

    now_s = 100.0
    page = generate_latest(registry).decode().splitlines()
    assert 'ship_catalog_age_seconds{backbone="vit",engine="a"} 101.0' in page
    assert [line for line in page if line.startswith("ship_last_look_seconds")] == [
        'ship_last_look_seconds{engine="a",of="catalog"} 101.0',
    ]
    now_s = 299.0
    metrics.note(stats("b", 6))
    now_s = 301.0
    page = generate_latest(registry).decode().splitlines()
    assert not any('engine="a"' in line for line in page)
    assert 'ship_swaps_total{backbone="vit",engine="b"} 6.0' in page
