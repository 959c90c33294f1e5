"""The pages of kept pictures: labels by form, second persons, what is shown to whom, and hostile files."""

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.manifest.load import load_manifest
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.drift import Alarm, DriftEntry, DriftStates
from orchestrator.store.drift import read_drift, write_drift
from orchestrator.store.kept.reviews import Reviews
from tests.factories import write_stripes
from tests.unit.orchestrator.console.factory import Console, make_console
from tests.unit.orchestrator.registry.factory import World, make_decided
from tests.unit.orchestrator.store.factory import make_kept

PNG = b"\x89PNG\r\n\x1a\n"
PAGE = "/review/bolts/pictures"


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return make(tmp_path)


def make(home: Path, **more: Any) -> Console:
    """A console on a store with one task that serves."""
    world = World()
    digest = world.store.publish("bolts", "1" * 64, make_decided(1, ("good", "scratched"))).digest
    entries = {"bolts": CatalogEntry(version=1, digest=digest)}
    world.store.write_catalog(Catalog(entries=entries), None)
    return make_console(home, world=world, **more)


def keep(console: Console, content: bytes, because: str | None = "several") -> str:
    first = labels(console)[0]
    kept = make_kept(
        content,
        decision="unsure" if because else first,
        because=because,
        probabilities=((first, 0.7), ("<script>alert(1)</script>", 0.3)),
        distance=1.0,
        time_s=console.clock.now_s,
    )
    assert Reviews(console.services.store).kept.put(kept, content)
    return kept.picture


def labels(console: Console) -> tuple[str, ...]:
    return Reviews(console.services.store).labels("bolts")


def give(console: Console, browser: Any, picture: str, label: str | None, **more: Any) -> Any:
    given = {"label": label} if label is not None else {"leaves_out": "true"}
    return browser.post("/review/bolts/label", data={"picture": picture, **given, **more})


def test_a_label_given_by_form_is_found_in_the_store_and_in_the_audit_log(console: Console):
    first, second = keep(console, PNG + b"1"), keep(console, PNG + b"2")
    browser = console.sign_in("maria", "decide")
    assert first in browser.get(PAGE).text
    label = labels(console)[1]
    reply = give(console, browser, first, label)
    assert reply.status_code == 303
    shown = browser.get(reply.headers["location"])
    assert f"Picture {first[:12]} has your label." in shown.text
    data = browser.get(f"{PAGE}.json").json()
    assert [one["picture"] for one in data["pictures"]] == [second]
    assert data["states"] == {"open": 1, "second": 0, "settled": 1, "left out": 0, "all": 2}
    entry = next(AuditLog(console.services.store).newest())
    assert (entry.record.action, entry.record.by) == ("review", "maria")
    assert entry.record.after["labels"] == {first: label}
    undone = browser.post("/review/bolts/undo", data={"picture": first})
    assert undone.status_code == 303
    assert browser.get(f"{PAGE}.json").json()["states"]["open"] == 2


def test_a_disagreement_is_shown_to_a_second_person_alone(console: Console):
    picture = keep(console, PNG, because=None)
    maria, ben = console.sign_in("maria", "decide"), console.sign_in("ben", "decide")
    give(console, maria, picture, labels(console)[1])
    second = f"{PAGE}.json?state=second"
    assert maria.get(second).json()["pictures"] == []
    [shown] = ben.get(second).json()["pictures"]
    assert (shown["picture"], shown["label"]) == (picture, None)
    give(console, ben, picture, labels(console)[1])
    [shown] = ben.get(f"{PAGE}.json?state=settled").json()["pictures"]
    assert shown["label"] == labels(console)[1]
    assert {one["by"] for one in shown["opinions"]} == {"maria", "ben"}


def test_to_look_is_not_to_label_and_other_tasks_are_not_told(console: Console):
    picture = keep(console, PNG)
    looker = console.sign_in("lou", "look")
    assert "to label takes one that may decide" in looker.get(PAGE).text
    assert give(console, looker, picture, labels(console)[0]).status_code == 403
    stranger = console.sign_in("sam", "decide", predict=("nuts",))
    for path in (PAGE, f"{PAGE}.json", f"/review/bolts/picture?picture={picture}"):
        assert stranger.get(path).status_code == 404
    assert give(console, stranger, picture, labels(console)[0]).status_code == 404
    assert stranger.get("/review.json").json() == {"tasks": []}
    [row] = looker.get("/review.json").json()["tasks"]
    assert (row["task"], row["num_kept"], row["num_looked_at"], row["drift"]) == ("bolts", 1, 0, None)


def test_a_forged_form_changes_nothing(console: Console):
    picture = keep(console, PNG)
    browser = console.sign_in("maria", "decide")
    del browser.headers["X-CSRF-Token"]
    assert give(console, browser, picture, labels(console)[0]).status_code == 403
    assert browser.get(f"{PAGE}.json").json()["states"]["open"] == 1


def test_names_stay_text_and_the_page_needs_no_script(console: Console):
    keep(console, PNG)
    page = console.sign_in("maria", "decide").get(PAGE).text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"\son\w+=|style=", page)
    keys = re.findall(r'data-key="(.)"', page)
    assert len(set(keys)) == len(keys)
    assert {"0", "1", "2"} <= set(keys)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (PNG, 200),
        (b"\xff\xd8\xff\xe0<script>alert(1)</script>", 200),
        (b"<svg onload='alert(1)'>", 415),
        (b"<!DOCTYPE html>", 415),
        (b"II*\0 a TIFF", 415),
    ],
)
def test_a_kept_file_is_sent_as_a_picture_or_not_at_all(console: Console, content: bytes, status: int):
    picture = keep(console, content)
    reply = console.sign_in().get(f"/review/bolts/picture?picture={picture}")
    assert reply.status_code == status
    if status == 200:
        assert reply.headers["content-type"].startswith("image/")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in reply.headers["content-security-policy"]


@pytest.mark.parametrize("wrong", ["../../tokens.json", "a" * 63, ""])
def test_no_name_of_a_picture_leads_elsewhere(console: Console, wrong: str):
    assert console.sign_in().get(f"/review/bolts/picture?picture={wrong}").status_code == 422


def test_an_alarm_is_shown_and_noted_with_a_reason(console: Console):
    alarm = Alarm(time_s=5.0, num_seen=120, signals=("distance", "unsure"))
    entry = DriftEntry(digest="a" * 64, rule=None, time_s=6.0, num_seen=150, evidence=1.2, alarm=alarm)
    write_drift(console.services.store.objects, DriftStates(tasks={"bolts": entry}), None)
    browser = console.sign_in("maria", "decide")
    assert "distance, unsure" in browser.get(PAGE).text
    assert browser.get("/review.json").json()["tasks"][0]["drift"] == "alarm"
    assert browser.post("/review/bolts/drift", data={"reason": " "}).status_code == 400
    assert browser.post("/review/bolts/drift", data={"reason": "the lens was dirty"}).status_code == 303
    noted = read_drift(console.services.store.objects)[0].tasks["bolts"]
    assert noted.acknowledged is not None
    assert (noted.state, noted.acknowledged.by) == ("acknowledged", "maria")


def test_a_button_tunes_anew_with_the_settled_labels(tmp_path: Path):
    write_stripes(tmp_path / "data", num_train=2, num_test=1)
    manifest = tmp_path / "lines.yaml"
    manifest.write_text("backbone: bundled\nstore: another\ntasks:\n  - {name: bolts, data: data}\n")
    started: list[Path] = []
    console = make(
        tmp_path / "home", manifest=str(manifest), start_tuning=lambda _, part: started.append(part)
    )
    maria, lou = console.sign_in("maria", "decide"), console.sign_in("lou", "look")
    refused = maria.post("/review/bolts/retune")
    assert (refused.status_code, started) == (400, [])
    assert "no picture with a settled label" in refused.text
    give(console, maria, keep(console, PNG + b"new"), labels(console)[1])
    assert "Tune with the settled labels" in maria.get(PAGE).text
    assert "Tune with the settled labels" not in lou.get(PAGE).text
    assert lou.post("/review/bolts/retune").status_code == 403

    assert maria.post("/review/bolts/retune").status_code == 303

    [part] = started
    found = load_manifest(str(part))
    # The version goes where this console, and its endpoint, look.
    assert found.store == str(tmp_path / "home" / "store")
    [task] = found.tasks
    assert (task.name, task.source.more) == ("bolts", str(part.parent / "labels.csv"))
    # The store drops it; the next table has it all the same.
    kept = Reviews(console.services.store).kept
    kept.drop("bolts", kept.files("bolts")[0].picture)
    give(console, maria, keep(console, PNG + b"newer"), labels(console)[0])
    assert maria.post("/review/bolts/retune").status_code == 303
    assert len((part.parent / "labels.csv").read_text().splitlines()) == 3
    (part.parent / "tune.log").write_text("error: no room")
    assert "error: no room" in maria.get(PAGE).text
    assert "error: no room" not in lou.get(f"{PAGE}.json").text


def test_without_a_manifest_the_command_is_told(console: Console):
    give(console, maria := console.sign_in("maria", "decide"), keep(console, PNG), labels(console)[1])
    assert "ship review retune bolts -m MANIFEST" in maria.get(PAGE).text
    assert "ship console --manifest FILE" in maria.post("/review/bolts/retune").text
