"""``ship backup`` and ``ship restore`` where the clock of a machine was wrong, or a copy was damaged."""

import json
import time
from pathlib import Path

from orchestrator.backup.taking import take_backup
from orchestrator.store.objects.local import LocalObjects
from tests.unit.orchestrator.cli.factory import Shell
from tests.unit.orchestrator.registry.factory import World

# In 2020 and in 2200: before and after now, whenever this runs.
EARLIER_S, AHEAD_S = 1_577_836_800.0, 7_258_118_400.0


def test_a_backup_that_is_dated_later_than_now_is_told_and_not_taken_for_the_last(tmp_path: Path) -> None:
    ship, place = Shell(World()), str(tmp_path / "place")
    ship.world.objects.put("stats/odd.json", b"wrong clock")
    ahead = take_backup(
        ship.world.objects, LocalObjects(Path(place)), lambda: None, clock=lambda: AHEAD_S
    ).manifest.id

    only = ship.run("restore", place, "--verify", "--store-only")
    assert f"Backup {ahead} is dated later than now" in only.stderr
    assert "it is taken, as no other is there" in only.stderr

    earlier = take_backup(
        ship.world.objects, LocalObjects(Path(place)), lambda: None, clock=lambda: EARLIER_S
    ).manifest.id
    done = ship.run("backup", place, "--keep", "1", "--store-only", "--json")
    assert f"if its date is wrong, delete file://{place}/backups/{ahead}" in done.stderr
    told = json.loads(done.stdout)
    assert (told["misdated"], told["removed"]) == ([ahead], [earlier])

    verified = ship.run("restore", place, "--verify", "--store-only", "--json")
    assert json.loads(verified.stdout)["id"] == told["id"]
    assert f"it is not taken; --backup {ahead} does so" in verified.stderr
    named = ship.run("restore", place, "--verify", "--backup", ahead, "--json")
    assert (json.loads(named.stdout)["id"], named.stderr) == (ahead, "")


def test_a_damaged_copy_is_told_and_written_again(tmp_path: Path) -> None:
    ship, place = Shell(World()), tmp_path / "place"
    ship.world.objects.put("stats/odd.json", b"what is kept")
    manifest = take_backup(ship.world.objects, LocalObjects(place), lambda: None).manifest
    [blob] = [place / "blobs" / one.sha256 for one in manifest.objects.values()]
    blob.write_bytes(b"what i")
    done = ship.run("backup", str(place), "--store-only")
    assert "written again, its copy was damaged: stats/odd.json" in done.stdout
    assert blob.read_bytes() == b"what is kept"
    blob.write_bytes(b"what is kepT")
    found = ship.run("restore", str(place), "--verify", "--store-only")
    assert found.exit_code == 1
    assert f"`ship backup file://{place} --verify` writes it again" in found.stdout.replace("\n", "")
    told = json.loads(ship.run("backup", f"file://{place}", "--verify", "--store-only", "--json").stdout)
    assert (told["rewritten"], told["damage"], told["damaged_copies"]) == (["stats/odd.json"], [], [])
    assert blob.read_bytes() == b"what is kept"


def test_a_damaged_copy_that_is_not_written_again_makes_the_exit_status_1(tmp_path: Path) -> None:
    ship, place = Shell(World()), tmp_path / "place"
    ship.world.add_tuned(1)
    manifest = take_backup(ship.world.objects, LocalObjects(place), lambda: None).manifest
    card = next(key for key in manifest.objects if key.endswith("prompt.json"))
    blob = place / "blobs" / manifest.objects[card].sha256
    blob.write_bytes(b"!" * manifest.objects[card].num_bytes)
    ship.world.objects.stored[card] = b"{}", 1.0
    done = ship.run("backup", str(place), "--store-only")
    assert done.exit_code == 1
    assert f"damaged in the place: {card}: file://{place}/blobs/{blob.name} is damaged" in done.stdout
    assert "damaged in the store" not in done.stdout


def test_the_last_full_backup_is_restored_and_a_newer_one_of_metadata_is_named(tmp_path: Path) -> None:
    ship, place = Shell(World()), str(tmp_path / "place")
    ship.world.add_tuned(1)
    backup = ("backup", place, "--store-only", "--keep", "1")
    objects, copies = ship.world.objects, LocalObjects(Path(place))
    old = take_backup(objects, copies, lambda: None, clock=lambda: EARLIER_S).manifest.id
    # Ids have whole seconds: of two that are taken at once, either is the later one.
    soon_s = time.time() + 60.0
    newer = take_backup(objects, copies, lambda: None, kind="metadata", clock=lambda: soon_s).manifest.id
    again = ship.json(*backup)
    assert again["removed"] == [old]

    restored = ship.run("restore", place, "--verify", "--store-only", "--json")
    assert (json.loads(restored.stdout)["id"], json.loads(restored.stdout)["kind"]) == (again["id"], "all")
    assert f"Backup {newer} is newer than the last full one, {again['id']}" in restored.stderr
    assert f"--backup {newer} does so" in restored.stderr
    named = ship.run("restore", place, "--verify", "--backup", newer, "--json")
    assert (json.loads(named.stdout)["kind"], named.stderr) == ("metadata", "")
