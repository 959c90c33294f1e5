"""``ship audit``, ``approve`` and ``approvals``, and what they change in the commands beside them."""

import json

import pytest

from orchestrator.cli.output import EXIT_WAITING
from orchestrator.errors import RegistryError
from orchestrator.store.audit.log import entry_key
from tests.unit.orchestrator.cli.factory import Shell
from tests.unit.orchestrator.registry.factory import World


@pytest.fixture
def ship() -> Shell:
    """Three versions of bolts and one of nuts, of which the first ones serve."""
    world = World()
    for number in (1, 2, 3):
        world.add("bolts", number)
    world.add("nuts", 1)
    shell = Shell(world)
    shell("promote", "bolts", "1", "--as", "anna", "--reason", "first")
    shell("promote", "nuts", "1", "--as", "anna")
    shell("canary", "bolts", "2", "5%", "--as", "ben", "--reason", "line 3")
    return shell


def test_the_log_tells_who_changed_what_and_why_the_last_first(ship: Shell) -> None:
    canary, promotion = ship.json("audit", "bolts")
    assert (canary["action"], canary["task"], canary["by"]) == ("canary", "bolts", "ben")
    assert (canary["before"]["share"], canary["after"]["share"]) == (None, 0.05)
    assert (promotion["action"], promotion["by"], promotion["reason"]) == ("promote", "anna", "first")
    assert promotion["user"], "the user of the system is kept beside the name"
    assert [entry["sequence"] for entry in ship.json("audit")] == [5, 4, 3, 2, 1]
    assert [entry["sequence"] for entry in ship.json("audit", "--limit", "2")] == [5, 4]
    [line, _] = ship("audit", "bolts").splitlines()
    assert "canary bolts canary - -> v2, share - -> 0.05  by ben (" in line
    assert line.endswith(": line 3")


def test_a_damaged_entry_is_listed_as_damaged(ship: Shell) -> None:
    ship.world.objects.stored[entry_key(3)] = b"{", 1.0
    lines = ship("audit", "bolts").splitlines()
    assert lines[1].startswith("3  damaged: audit/000000000003.json: Invalid JSON")
    [damaged] = [one for one in ship.json("audit") if one.get("damaged")]
    assert (damaged["sequence"], damaged["action"], damaged["by"]) == (3, None, None)


def test_since_takes_a_duration_and_a_date(ship: Shell) -> None:
    assert len(ship.json("audit", "--since", "1h")) == 5
    assert ship.json("audit", "--since", "2100-01-01") == []
    assert "No such entry" in ship("audit", "caps")
    for flags in (("--since", "yesterday"), ("--limit", "0"), ("--known", "5:ab")):
        assert ship.run("audit", *flags).exit_code == 2
    assert ship.run("audit", "--verify", "--known", "5:ab").exit_code == 2


def test_a_log_that_is_whole_is_verified_with_the_line_to_keep(ship: Shell) -> None:
    head = ship.json("audit", "--verify")["head"]
    printed = ship("audit", "--verify")
    kept = f"{head['sequence']}:{head['digest']}"
    assert f"Last entry: {kept}" in printed
    ship("shadow", "bolts", "3")
    assert ship.json("audit", "--verify", "--known", kept)["breaks"] == []


def test_a_break_ends_with_status_1_and_its_place_and_kind(ship: Shell) -> None:
    kept = ship.json("audit", "--verify")["head"]
    del ship.world.objects.stored[entry_key(3)]
    result = ship.run("audit", "--verify", "--json")
    assert result.exit_code == 1
    [found] = json.loads(result.stdout)["breaks"]
    assert (found["place"], found["kind"]) == (entry_key(3), "missing")
    assert f"{entry_key(3)}: missing: " in ship.run("audit", "--verify").stdout
    wrong = ship.run("audit", "--verify", "--known", f"{kept['sequence']}:{'0' * 64}", "--json")
    kinds = {one["kind"] for one in json.loads(wrong.stdout)["breaks"]}
    assert kinds == {"missing", "changed"}


def test_a_promotion_waits_for_a_second_person_with_status_3(ship: Shell) -> None:
    ship("approvals", "--require", "bol*", "--as", "anna")
    result = ship.run("promote", "bolts", "3", "--as", "anna", "--reason", "new camera")
    assert result.exit_code == EXIT_WAITING
    assert "bolts: version 3 waits for an approval, and version 1 serves on" in result.stdout
    waits = ship.run("promote", "bolts", "3", "--as", "anna", "--json")
    assert (waits.exit_code, json.loads(waits.stdout)["waits"]) == (EXIT_WAITING, True)
    for listed in (ship("ls"), ship("show", "bolts"), ship("approvals")):
        assert "bolts: version 3 waits for an approval by another person: `ship approve bolts`" in listed
        assert "new camera" in listed
    bolts, nuts = ship.json("ls")
    assert (bolts["pending"]["version"], bolts["pending"]["by"], nuts["pending"]) == (3, "anna", None)
    assert ship.json("show", "bolts")["pending"]["is_void"] is False
    assert isinstance(ship.run("approve", "bolts", "--as", "anna").exception, RegistryError)
    assert ship.json("approve", "bolts", "--as", "ben") == {
        "task": "bolts",
        "from": 1,
        "to": 3,
        "waits": False,
        "serves": None,
        "problem": "there is no catalog yet: `ship serve` writes it when it starts",
    }
    assert ship.json("approvals")["pending"] == []


def test_a_void_request_says_so_and_is_rejected(ship: Shell) -> None:
    ship("promote", "bolts", "2", "--as", "anna")
    ship("approvals", "--require", "*")
    assert ship.run("promote", "bolts", "3", "--as", "anna").exit_code == EXIT_WAITING
    ship("rollback", "bolts")
    assert "the request to promote version 3 is void" in ship("ls")
    assert ship.json("approve", "bolts", "--reject", "--as", "anna") == {"task": "bolts", "rejected": 3}
    assert "void" not in ship("ls")


def test_a_withheld_version_waits_no_more(ship: Shell) -> None:
    ship("approvals", "--require", "bolts")
    assert ship.run("promote", "bolts", "3").exit_code == EXIT_WAITING
    assert ship.json("withhold", "bolts", "3", "--as", "ben", "--reason", "breaks dents") == {
        "task": "bolts",
        "withheld": 3,
    }
    assert ship.json("show", "bolts")["pending"] is None
    [entry] = ship.json("audit", "bolts", "--limit", "1")
    assert (entry["action"], entry["by"], entry["reason"]) == ("reject", "ben", "breaks dents")
    assert entry["after"]["withheld"] == {"version": 3}
    for version, said in (("3", "does not wait for a decision"), ("1", "serves; `ship rollback bolts`")):
        refused = ship.run("withhold", "bolts", version)
        assert isinstance(refused.exception, RegistryError)
        assert said in str(refused.exception)


def test_patterns_of_the_store_are_added_and_lifted(ship: Shell) -> None:
    assert ship.json("approvals", "--require", "a*", "--require", "b*")["patterns"] == ["a*", "b*"]
    assert ship.json("approvals", "--lift", "a*")["patterns"] == ["b*"]
    assert [entry["action"] for entry in ship.json("audit", "--limit", "2")] == ["approvals"] * 2
    assert ship.json("approvals") == {"patterns": ["b*"], "tasks": [], "pending": []}


@pytest.mark.parametrize("command", [("promote", "bolts", "3"), ("canary", "bolts", "3", "5%")])
def test_force_needs_a_reason(ship: Shell, command: tuple[str, ...]) -> None:
    tags = ship.world.mlflow.versions["ship.bolts"][3].tags
    tags.update({"ship.gate": "challenger", "ship.gate_refused": "true", "ship.gate_reason": "Worse."})
    assert "the gate refused version 3" in str(ship.run(*command).exception)
    for flags in (("--force",), ("--force", "--reason", " ")):
        result = ship.run(*command, *flags)
        assert (result.exit_code, "--force needs --reason" in result.output) == (2, True)
    ship(*command, "--force", "--reason", "the gate judged old pictures")
    newest = ship.json("audit", "--limit", "1")[0]
    assert (newest["reason"], newest["after"]["forced"]) == ("the gate judged old pictures", True)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 300])
def test_a_name_that_is_none_is_refused(ship: Shell, name: str) -> None:
    result = ship.run("promote", "bolts", "2", "--as", name)
    assert "--as" in str(result.exception)
    assert "expected the name of a person" in str(result.exception)


def test_tokens_and_the_garbage_collection_are_in_the_log(ship: Shell) -> None:
    ship("token", "create", "plc", "--predict", "*", "--as", "anna", "--reason", "line 3")
    ship("token", "rotate", "plc")
    ship("token", "revoke", "plc", "--as", "ben")
    revoke, rotate, create = ship.json("audit", "--limit", "3")
    assert [one["action"] for one in (create, rotate, revoke)] == [
        "token-create",
        "token-rotate",
        "token-revoke",
    ]
    assert (create["by"], create["reason"], revoke["by"]) == ("anna", "line 3", "ben")
    assert (list(create["after"]), revoke["after"]) == (["plc"], {})


def test_sync_writes_what_a_command_was_ended_before(ship: Shell) -> None:
    stored = ship.world.objects.stored
    kept = {key: value for key, value in stored.items() if key.startswith("audit/")}
    ship("token", "create", "plc", "--predict", "*")
    tokens = json.loads(stored["tokens.json"][0])
    entry = json.loads(stored[entry_key(6)][0])
    tokens["trail"] = {"waiting": [entry["record"]]}
    stored["tokens.json"] = json.dumps(tokens).encode(), stored["tokens.json"][1]
    for key in [key for key in stored if key.startswith("audit/")]:
        del stored[key]
    stored.update(kept)
    assert "1 changes wait for the log: `ship sync` writes them." in ship("audit", "--verify")
    ship("sync", "--as", "ben")
    assert ship.json("audit", "--verify")["num_waiting"] == 0
    assert [one["action"] for one in ship.json("audit", "--limit", "1")] == ["token-create"]


def test_ls_names_an_alias_whose_version_is_gone_and_lists_all_tasks(ship: Shell) -> None:
    ship.world.move_by_hand("challenger", 9)
    listed = ship.run("ls")
    assert listed.exit_code == 0
    assert {"bolts", "nuts"} <= set(listed.stdout.split())
    assert "bolts: MLflow has @challenger at version 9, which is gone" in listed.stderr
    bolts, nuts = ship.json("ls")
    assert (bolts["champion"]["version"], bolts["challenger"], nuts["problem"]) == (1, None, None)
    assert "@challenger at version 9" in bolts["problem"]
    assert "@challenger at version 9" in ship("show", "bolts")
    assert len(ship.json("show", "bolts")["problems"]) == 1
    ship("promote", "bolts", "3")
    assert ship.run("ls").stderr == ""
    assert ship.json("show", "bolts")["problems"] == []


def test_a_promotion_says_that_it_serves_only_where_the_catalog_has_it(ship: Shell) -> None:
    said = ship("promote", "bolts", "2")
    assert "bolts: version 2 is the champion now, version 1 was before; the catalog that endpoints" in said
    assert "has nothing: there is no catalog yet: `ship serve` writes it when it starts" in said
    ship("sync")
    assert ship("promote", "bolts", "3") == "bolts: version 3 serves now, version 2 did before.\n"
    assert ship.json("rollback", "bolts")["serves"] == 2
    assert [one["serves"] for one in ship.json("ls")] == [2, 1]
    stored = ship.world.objects.stored
    stored["catalog.json"] = b"{", 0.0
    assert "has nothing: the catalog cannot be brought in line: " in ship("promote", "bolts", "3")


def test_ls_names_what_the_catalog_has_not_and_what_cannot_be_read(ship: Shell) -> None:
    ship("sync")
    ship.world.rollouts().promote("bolts", 3)
    stored = ship.world.objects.stored
    behind = ship.run("ls")
    assert (
        "another version than the champion of 1 tasks, such as bolts: version 1, not version 3"
        in behind.stderr
    )
    stored["rollouts/bolts.json"] = b"{", stored["rollouts/bolts.json"][1]
    bolts, nuts = ship.json("ls")
    assert "rollouts/bolts.json" in bolts["problem"]
    assert (bolts["serves"], bolts["champion"]["version"], nuts["problem"]) == (1, 3, None)
    assert "rollouts/bolts.json" in ship("show", "bolts"), "its versions are shown all the same"
    ship("promote", "bolts", "3")
    assert ship.run("ls").stderr == ""
