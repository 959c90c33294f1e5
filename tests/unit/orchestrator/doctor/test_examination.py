"""An examination goes on past a check that hangs or fails, and shows no secret."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

from orchestrator.doctor.checks import CHECKS
from orchestrator.doctor.examination import Check, examine
from orchestrator.doctor.row import Place, Row, ok, skipped
from orchestrator.errors import StoreError
from tests.unit.orchestrator.doctor.factory import make_place, make_served

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "kept/for+myself",
    "SHIP_TOKEN": "ship_0123456789ab_secret",
    "MLFLOW_TRACKING_PASSWORD": "hunter22",
    "HTTPS_PROXY": "http://me:pr0xypass@proxy:3128",
}


def check(name: str, *rows: Row, needs: tuple[str, ...] = (), error: Exception | None = None) -> Check:
    def look(_: Place) -> Iterator[Row]:
        yield from rows
        if error is not None:
            raise error

    return Check(name=name, look=look, needs=needs, expected="soundness")


def test_a_check_that_hangs_costs_its_deadline_and_is_named(tmp_path: Path) -> None:
    forever = threading.Event()

    def look(_: Place) -> Iterator[Row]:
        yield ok("first", "was quick")
        forever.wait()

    found = examine(
        make_place(tmp_path), [Check(name="slow", look=look), check("next", ok("next", ""))], 0.05
    )

    assert found.hung == ("slow",)
    first, late = found.rows["slow"]
    assert (first.found, late.state, late.found) == ("was quick", "fail", "no answer within 0.05 s")
    assert "--deadline" in late.advice
    assert [row.state for row in found.rows["next"]] == ["ok"]
    forever.set()


def test_errors_are_findings(tmp_path: Path) -> None:
    checks = [
        check("ours", error=StoreError(["one is gone", "so is another"])),
        check("theirs", ok("theirs", "began"), error=KeyError("odd")),
    ]
    found = examine(make_place(tmp_path), checks, 10.0)
    assert [(row.state, row.found) for row in found.rows["ours"]] == [
        ("fail", "one is gone"),
        ("fail", "so is another"),
    ]
    assert [row.state for row in found.rows["theirs"]] == ["ok", "fail"]
    assert found.rows["theirs"][1].found == "KeyError: 'odd'"
    assert all(row.expected == "soundness" for _, row in found if row.state == "fail")


def test_what_needs_something_that_fails_or_is_not_there_is_skipped(tmp_path: Path) -> None:
    checks = [
        check("down", error=StoreError("down")),
        check("absent", skipped("absent", "not made yet")),
        check("sound", ok("sound", "")),
        check("first", ok("first", ""), needs=("sound", "down")),
        check("second", ok("second", ""), needs=("absent",)),
        check("third", ok("third", ""), needs=("sound",)),
        check("fourth", ok("fourth", ""), needs=("first",)),
    ]
    found = examine(make_place(tmp_path), checks, 10.0)
    assert {name: row.state for name, row in found if name not in ("down", "absent", "sound")} == {
        "first": "skipped",
        "second": "skipped",
        "third": "ok",
        "fourth": "skipped",
    }
    assert found.rows["first"][0].found == "needs down"


def test_no_row_shows_a_secret(tmp_path: Path) -> None:
    store = "s3://key:st0repass@bucket/ship?token=t0ken123"
    ray = "ray://me:raypass1@head:10001"
    said = [*SECRETS.values(), store, ray, "postgresql://ops:dbpass12@db/mlflow", "password=elsewhere1"]
    rows = [Row(what="all", state="fail", found=text, expected=text, advice=text) for text in said]
    place = make_place(tmp_path, environ=SECRETS, store=store, ray_address=ray)

    found = examine(place, [check("leaky", *rows)], 10.0)

    shown = json.dumps([vars(row) for _, row in found])
    hidden = (
        *("kept/for+myself", "ship_0123", "hunter22", "pr0xypass", "st0repass", "t0ken123"),
        *("raypass1", "dbpass12", "elsewhere1"),
    )
    assert [secret for secret in hidden if secret in shown] == []
    assert "bucket/ship" in shown


def test_a_sound_installation_has_no_failure_and_is_left_as_it_was(tmp_path: Path) -> None:
    world = make_served()
    world.now_s = max(at_s for _, at_s in world.objects.stored.values()) + 10.0
    stored, models = dict(world.objects.stored), json.dumps(world.mlflow.models, default=vars)
    light = [one for one in CHECKS if one.name not in ("device", "backbone", "versions")]

    found = examine(make_place(tmp_path, world), light, 30.0)

    assert [(name, row) for name, row in found if row.state == "fail"] == []
    assert [(name, row.what) for name, row in found if row.state == "warn"] == [("tokens", "tokens")]
    assert world.objects.stored == stored
    assert json.dumps(world.mlflow.models, default=vars) == models
    assert list(tmp_path.iterdir()) == []


def test_names_of_checks_and_of_what_they_need_fit() -> None:
    names = [one.name for one in CHECKS]
    assert len(set(names)) == len(names)
    for place, one in enumerate(CHECKS):
        assert set(one.needs) <= set(names[:place])
