"""Faults of what serves, each planted and found, and not found where it is not."""

from pathlib import Path

import pytest

from orchestrator.client.client import EndpointError
from orchestrator.doctor.serving import check_backbones, check_endpoint
from tests.unit.orchestrator.doctor.factory import make_place, make_served, told
from tests.unit.orchestrator.serve.factory import FakeEngine
from tests.unit.orchestrator.store.factory import make_key

TUNED_ON = make_key("backbone")


def backbones(tmp_path: Path, *specs: str, is_of: str = TUNED_ON) -> list[tuple[str, str]]:
    place = make_place(tmp_path, make_served(), backbones=specs)
    return told(check_backbones(place, fingerprint=lambda _: is_of))


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    assert backbones(tmp_path, "bundled") == []
    assert ("fail", "backbone") in backbones(tmp_path, str(tmp_path / "gone"))
    assert backbones(tmp_path, "vit_base_patch16_224") == [("skipped", "backbone")]


def test_a_backbone_that_tasks_were_not_tuned_on(tmp_path: Path) -> None:
    world = make_served()
    catalog, etag = world.store.read_catalog()
    world.store.write_catalog(catalog.with_backbones(lambda _: TUNED_ON), etag)
    place = make_place(tmp_path, world, backbones=("bundled",))
    assert told(check_backbones(place, fingerprint=lambda _: TUNED_ON)) == []
    assert told(check_backbones(place, fingerprint=lambda _: "f" * 64)) == [("warn", "backbone")]


def test_a_backbone_of_the_store(tmp_path: Path) -> None:
    world = make_served()
    place = make_place(tmp_path, world, backbones=(f"store:{TUNED_ON[:16]}",))
    assert ("fail", "backbone") in told(check_backbones(place))
    world.objects.put(f"backbones/{TUNED_ON}/config.json", b"{}")
    assert told(check_backbones(place)) == []


def test_no_endpoint_is_named(tmp_path: Path) -> None:
    assert told(check_endpoint(make_place(tmp_path))) == [("skipped", "endpoint")]


def test_an_endpoint_that_answers(tmp_path: Path, url: str) -> None:
    assert told(check_endpoint(make_place(tmp_path, endpoint=url))) == []


def test_an_endpoint_that_does_not_answer(tmp_path: Path, closed_port: int) -> None:
    with pytest.raises(EndpointError, match="is `ship serve` running"):
        list(check_endpoint(make_place(tmp_path, endpoint=f"http://127.0.0.1:{closed_port}")))


def test_an_endpoint_whose_catalog_is_old(tmp_path: Path, engine: FakeEngine, url: str) -> None:
    engine.catalog_age_s, engine.num_problems = 3600.0, 2
    rows = check_endpoint(make_place(tmp_path, endpoint=url))
    assert told(rows) == [("warn", "endpoint"), ("warn", "endpoint")]


def test_an_endpoint_that_wants_a_token(tmp_path: Path, guarded: tuple[str, str, str]) -> None:
    rows = list(check_endpoint(make_place(tmp_path, endpoint=guarded[0])))
    assert told(rows) == [("skipped", "endpoint's version")]
    assert "SHIP_TOKEN" in rows[-1].advice
