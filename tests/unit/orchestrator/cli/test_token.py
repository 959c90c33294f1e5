"""``ship token``: what goes to standard output, what beside it, and what ends in the store."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.documents.tokens import Tokens, parse_token
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from tests.console import run_ship

DAY_S = 86_400.0


class Clock:
    """Seconds since the epoch that pass when told to."""

    now_s = 1_800_000_000.0


class Shell:
    """Runs ``ship token`` on a store of its own."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Path
    ) -> None:
        self._monkeypatch, self._capsys, self._store = monkeypatch, capsys, store
        self.status, self.out, self.err = 0, "", ""

    def __call__(self, *arguments: str) -> str:
        """Standard output."""
        self.status = run_ship(self._monkeypatch, "--store", str(self._store), "token", *arguments)
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    @property
    def content(self) -> bytes:
        return (self._store / "tokens.json").read_bytes()

    @property
    def tokens(self) -> Tokens:
        found = PromptStore(open_objects(str(self._store))).read_tokens()
        assert found is not None
        return found[0]

    def is_good(self, text: str, now_s: float) -> bool:
        token_id, secret = parse_token(text) or ("", "")
        found = self.tokens.find(token_id)
        return found is not None and found[2].is_made_of(secret) and found[2].is_live(now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("orchestrator.cli.token.time.time", lambda: clock.now_s)
    return clock


@pytest.fixture
def ship(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, clock: Clock
) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path / "store")


def test_a_token_is_all_of_standard_output_and_only_its_hash_is_kept(ship: Shell, clock: Clock) -> None:
    text = ship("create", "line-1", "--predict", "line-1-*", "--predict", "bolts", "--expires", "90d")
    assert ship.status == 0
    assert text.endswith("\n")
    text = text.removesuffix("\n")
    token_id, secret = parse_token(text) or ("", "")
    assert token_id in ship.err
    assert "SHIP_TOKEN" in ship.err
    assert secret not in ship.err
    assert secret.encode() not in ship.content
    assert ship.tokens.by_name["line-1"].scope.predict == ("line-1-*", "bolts")
    assert ship.is_good(text, clock.now_s + 90 * DAY_S - 1)
    assert not ship.is_good(text, clock.now_s + 90 * DAY_S)


def test_a_token_in_json(ship: Shell) -> None:
    made = ship.json("create", "ops", "--admin", "--metrics")
    token_id, _ = parse_token(made["token"]) or ("", "")
    assert made == {
        "name": "ops",
        "token": made["token"],
        "predict": [],
        "metrics": True,
        "admin": True,
        "console": None,
        "id": token_id,
        "created": "2027-01-15T08:00:00Z",
        "expires": None,
    }


def test_a_list_shows_what_tokens_are_good_for_and_no_secret(ship: Shell, clock: Clock) -> None:
    assert ship.json("ls") == []
    assert "ship token create" in ship("ls")
    texts = [
        ship("create", "line-1", "--predict", "line-[12]-*", "--expires", "1d").strip(),
        ship("create", "prometheus", "--metrics").strip(),
    ]
    clock.now_s += 2 * DAY_S
    first, second = ship.json("ls")
    assert (first["name"], first["predict"], first["secrets"][0]["is_live"]) == (
        "line-1",
        ["line-[12]-*"],
        False,
    )
    assert (second["name"], second["metrics"], second["secrets"][0]["is_live"]) == ("prometheus", True, True)
    listed = ship.out + ship("ls")
    assert "line-[12]-*" in ship.out
    for text in texts:
        token_id, secret = parse_token(text) or ("", "")
        assert token_id in listed
        assert secret not in listed


def test_a_rotation_ends_the_old_token_at_once_or_after_its_grace(ship: Shell, clock: Clock) -> None:
    first = ship("create", "line-1", "--predict", "*").strip()
    second = ship("rotate", "line-1", "--grace", "1h").strip()
    assert "stays valid for 60 min" in ship.err
    assert ship.is_good(first, clock.now_s + 3599)
    assert not ship.is_good(first, clock.now_s + 3600)
    third = ship.json("rotate", "line-1")["token"]
    assert [ship.is_good(text, clock.now_s) for text in (first, second, third)] == [False, False, True]
    assert ship.status == 0


def test_a_revoked_token_is_gone(ship: Shell, clock: Clock) -> None:
    text = ship("create", "line-1", "--predict", "*").strip()
    token_id, _ = parse_token(text) or ("", "")
    told = json.loads(ship("revoke", "line-1", "--json"))
    assert told == {"name": "line-1", "revoked": [token_id]}
    assert not ship.is_good(text, clock.now_s)
    assert ship.json("ls") == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["create", "line-1"], 2, "--predict '*'"),
        (["create", "Line 1", "--admin"], 2, "token name 'Line 1'"),
        (["create", "a", "--predict", "LINE*"], 2, "--predict 'LINE*'"),
        (["create", "a", "--admin", "--expires", "soon"], 2, "--expires"),
        (["create", "a", "--admin", "--expires", "999999999999w"], 2, "year 10000"),
        (["create", "taken", "--admin"], 1, "ship token rotate taken"),
        (["rotate", "line-9"], 1, "no token 'line-9'"),
        (["rotate", "taken", "--grace", "-1h"], 2, "--grace"),
        (["revoke", "line-9"], 1, "no token 'line-9'"),
        (["revoke"], 2, "Missing argument"),
    ],
)
def test_what_is_refused_changes_nothing(ship: Shell, arguments: list[str], status: int, said: str) -> None:
    ship("create", "taken", "--predict", "*")
    before = ship.content
    assert ship(*arguments) == ""
    assert ship.status == status
    assert said in ship.err
    assert "Traceback" not in ship.err
    assert ship.content == before


@pytest.mark.parametrize("command", ["create", "ls", "rotate", "revoke"])
def test_help_has_examples(ship: Shell, command: str) -> None:
    printed = ship(command, "--help")
    assert ship.status == 0
    assert "Example" in printed
    assert f"ship token {command}" in printed


def test_a_broken_token_is_listed_mended_and_taken_away(ship: Shell) -> None:
    ship("create", "plc", "--predict", "line-1-*", "--expires", "90d")
    ship("create", "ops", "--admin")
    document = json.loads(ship.content)
    document["tokens"]["plc"]["extra"] = 1
    document["tokens"]["Odd [name]"] = None
    (ship._store / "tokens.json").write_text(json.dumps(document))
    listed = {row["name"]: row for row in ship.json("ls")}
    assert listed["ops"]["problem"] is None
    assert "'extra'" in listed["plc"]["problem"]
    assert "name of another form" in listed["Odd [name]"]["problem"]
    assert "Odd [name]" in ship("ls")
    assert "`ship token rotate` gives it a new secret" in " ".join(ship.err.split())
    assert ship.status == 0
    text = ship("rotate", "plc").strip()
    assert ship.tokens.by_name["plc"].scope.predict == ("line-1-*",)
    assert ship.is_good(text, Clock.now_s)
    assert "Odd [name] (broken) is revoked" in ship("revoke", "Odd [name]")
    assert not ship.tokens.broken


def test_access_to_the_console_is_granted_for_tasks(ship: Shell) -> None:
    made = ship.json("create", "maria", "--predict", "line-1-*", "--console", "decide")
    assert (made["predict"], made["console"]) == (["line-1-*"], "decide")
    assert ship.tokens.by_name["maria"].scope.console == "decide"
    assert [one["console"] for one in ship.json("ls")] == ["decide"]
    ship("create", "eva", "--console", "look")
    assert ship.status == 2
    assert "add --predict" in ship.err
