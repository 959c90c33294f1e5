"""The number of replicas, their resources, and what Ray Serve is told of both."""

import pytest

from orchestrator.cluster.session import Session
from orchestrator.serve.launch.deployments import name_engines
from orchestrator.serve.launch.placement import Placement
from orchestrator.serve.options import ServeOptions
from orchestrator.serve.scale import Scale

OWN = Session(is_own=True, num_cpus=8, num_gpus=0)


def place(
    session: Session = OWN,
    engines: str = "1",
    ingresses: str = "1",
    num_backbones: int = 1,
    wanted: int | None = None,
) -> Placement:
    options = ServeOptions(
        engines=Scale.read(engines),
        ingresses="inside" if ingresses == "inside" else Scale.read(ingresses),
        backbones=tuple(map(str, range(num_backbones))),
        num_cpus_per_replica=wanted,
    )
    return Placement.of(session, options)


@pytest.mark.parametrize(
    ("session", "given", "cpus", "threads"),
    [
        (OWN, {"engines": "2"}, 4.0, 4),
        (OWN, {"engines": "2", "num_backbones": 2}, 2.0, 2),
        (OWN, {"engines": "auto:1-4"}, 2.0, 2),
        (Session(is_own=True, num_cpus=2, num_gpus=0), {"engines": "4"}, 0.5, 1),
        (Session(is_own=False, num_cpus=64, num_gpus=0), {}, 1.0, 1),
        (Session(is_own=False, num_cpus=64, num_gpus=0), {"wanted": 8}, 8.0, 8),
    ],
)
def test_a_ray_of_our_own_is_shared_and_a_joined_one_is_asked_little(
    session: Session, given: dict[str, object], cpus: float, threads: int
) -> None:
    found = place(session, **given)
    assert (found.cpus, found.num_threads) == (cpus, threads)


@pytest.mark.parametrize(
    ("num_gpus", "engines", "num_backbones", "each"),
    [(0, "1", 1, 0.0), (4, "2", 1, 1.0), (1, "2", 1, 0.5), (2, "2", 2, 0.5), (1, "3", 1, 0.3333)],
)
def test_an_engine_has_a_device_or_a_part_of_one(
    num_gpus: int, engines: str, num_backbones: int, each: float
) -> None:
    session = Session(is_own=True, num_cpus=8, num_gpus=num_gpus)
    found = place(session, engines=engines, num_backbones=num_backbones)
    assert found.gpus == each
    assert found.gpus * int(engines) * num_backbones <= num_gpus


@pytest.mark.parametrize(
    ("session", "num_backbones", "engines", "ingresses"),
    [
        (OWN, 1, (1, 1), (1, 2)),
        (Session(is_own=True, num_cpus=2, num_gpus=0), 1, (1, 1), (1, 1)),
        (Session(is_own=True, num_cpus=16, num_gpus=8), 1, (1, 8), (1, 4)),
        (Session(is_own=True, num_cpus=16, num_gpus=8), 3, (1, 2), (1, 4)),
        (Session(is_own=False, num_cpus=160, num_gpus=10, num_nodes=10), 1, (1, 10), (10, 40)),
        (Session(is_own=False, num_cpus=12, num_gpus=0, num_nodes=6), 2, (1, 3), (6, 6)),
    ],
)
def test_the_cluster_gives_the_bounds_of_auto(
    session: Session, num_backbones: int, engines: tuple[int, int], ingresses: tuple[int, int]
) -> None:
    found = place(session, "auto", "auto", num_backbones)
    assert (found.engines.least, found.engines.most) == engines
    assert (found.ingresses.least, found.ingresses.most) == ingresses


def test_a_fixed_number_is_not_scaled() -> None:
    found = place(engines="2", ingresses="3")
    assert found.of_engines() == {"num_replicas": 2}
    assert found.of_ingresses() == {"num_replicas": 3}


def test_ingresses_with_an_engine_inside_are_as_many_as_engines() -> None:
    assert place(engines="2", ingresses="inside").of_ingresses() == {"num_replicas": 2}
    scaled = place(engines="auto:1-8", ingresses="inside").of_ingresses()["autoscaling_config"]
    assert (scaled["min_replicas"], scaled["max_replicas"]) == (1, 8)
    # Requests are counted, as at an ingress apart, and not calls.
    assert scaled["target_ongoing_requests"] == 32.0


def test_bounds_become_ray_serves_own_policy() -> None:
    found = place(engines="auto:1-8", ingresses="auto:2-6")
    engines, ingresses = (one["autoscaling_config"] for one in (found.of_engines(), found.of_ingresses()))
    assert (engines["min_replicas"], engines["max_replicas"]) == (1, 8)
    assert (ingresses["min_replicas"], ingresses["max_replicas"]) == (2, 6)
    # Each ingress has two calls at most under way for an engine, so that two can have four.
    assert engines["target_ongoing_requests"] == 3.0
    assert place(engines="auto:1-8").of_engines()["autoscaling_config"]["target_ongoing_requests"] == 1.5
    assert 0 < engines["upscale_delay_s"] < engines["downscale_delay_s"]


def test_replicas_are_spread_over_nodes() -> None:
    cluster = Session(is_own=False, num_cpus=64, num_gpus=0, num_nodes=4)
    found = place(cluster, engines="6", ingresses="auto:4-10")
    assert found.of_engines() == {"num_replicas": 6, "max_replicas_per_node": 2}
    assert found.of_ingresses()["max_replicas_per_node"] == 3


def test_deployments_of_engines_have_names_of_their_own() -> None:
    assert name_engines(["bundled"]) == {"Engine": "bundled"}
    specs = ["bundled", "/models/vit a/", "hf_hub:timm/vit a", "x/vit a"]
    assert name_engines(specs) == dict(
        zip(["Engine-bundled", "Engine-vit-a", "Engine-vit-a-3", "Engine-vit-a-4"], specs, strict=True)
    )
