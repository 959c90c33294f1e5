"""``ship predict`` and ``ship explain`` against the real application, with an engine that is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.console import run_ship
from tests.unit.orchestrator.client.endpoint import PNG
from tests.unit.orchestrator.serve.factory import FakeEngine


def answers(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_ship_predict(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Longer than its column.
    (tmp_path / "line-1").mkdir()
    good, bad = str(tmp_path / "line-1" / "good.png"), str(tmp_path / "line-1" / "bad.png")
    Path(good).write_bytes(PNG)
    Path(bad).write_bytes(PNG[:100])
    monkeypatch.setenv("SHIP_URL", url)

    assert run_ship(monkeypatch, "predict", "bolts", good) == 0
    printed = capsys.readouterr().out
    # However narrow the first column is, nothing is cut off.
    assert good in "".join(line.partition("│")[0].strip() for line in printed.splitlines())
    assert "bad 75.0%, good 25.0%" in printed

    assert run_ship(monkeypatch, "predict", "bolts", good, bad, "--json") == 1
    first, second = answers(capsys)
    assert (first["image"], first["label"], first["version"]) == (good, "bad", 2)
    assert second["image"] == bad
    assert "Corrupt image" in second["error"]

    assert run_ship(monkeypatch, "predict", "bolts", bad) == 1
    assert "Corrupt image" in capsys.readouterr().out


def test_ship_predict_shows_decisions(
    url: str,
    engine: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cap.png").write_bytes(PNG)
    asked = ("predict", "bolts", str(tmp_path / "cap.png"), "--url", url)
    engine.decision, engine.because = "unsure", "far"
    assert run_ship(monkeypatch, *asked) == 0
    assert "unsure: far" in capsys.readouterr().out
    assert run_ship(monkeypatch, *asked, "--json") == 0
    [found] = answers(capsys)
    assert (found["decision"], found["decision_because"], found["rule"]) == ("unsure", "far", None)


def test_ship_predict_with_a_token(
    guarded: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, ours, _ = guarded
    (tmp_path / "cap.png").write_bytes(PNG)
    asked = ("predict", "bolts", str(tmp_path / "cap.png"), "--url", url)
    assert run_ship(monkeypatch, *asked) == 1
    assert "set SHIP_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("SHIP_TOKEN", ours)
    assert run_ship(monkeypatch, *asked, "--json") == 0
    assert [answer["label"] for answer in answers(capsys)] == ["bad"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["bolts"], 2, "Missing argument"),
        (["bolts", "nowhere.png"], 2, "nowhere.png"),
        (["../bolts", __file__], 1, "no task name"),
        (["bolts", __file__, "--url", "ftp://x"], 1, "ftp"),
    ],
)
def test_ship_predict_refuses(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    assert run_ship(monkeypatch, "predict", *arguments) == status
    assert said in capsys.readouterr().err


def test_ship_explain_asks_once_whatever_the_forms_are(
    url: str,
    engine: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = tmp_path / "data" / "cap.png"
    image.parent.mkdir()
    image.write_bytes(PNG)
    asked = ("explain", "bolts", str(image), "--url", url)
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--json",), ("--json", "-o", "heat.png")):
        engine.asks.clear()
        capsys.readouterr()
        assert run_ship(monkeypatch, *asked, *options) == 0
        assert len(engine.asks) == 1
    assert (tmp_path / "heat.png").read_bytes() == (tmp_path / "cap-bolts.png").read_bytes()
    assert json.loads(capsys.readouterr().out)["distance"] == 0.5


def test_ship_explain(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image, working = tmp_path / "data" / "cap.png", tmp_path / "working"
    image.parent.mkdir()
    working.mkdir()
    image.write_bytes(PNG)
    monkeypatch.setenv("SHIP_URL", url)
    monkeypatch.chdir(working)

    assert run_ship(monkeypatch, "explain", "bolts", str(image), "-o", str(tmp_path / "heat.png")) == 0
    assert "heat.png" in capsys.readouterr().out
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert run_ship(monkeypatch, "explain", "bolts", str(image)) == 0
    assert (working / "cap-bolts.png").exists()
    assert list(image.parent.iterdir()) == [image]
    assert image.read_bytes() == PNG
    capsys.readouterr()

    before = sorted(tmp_path.rglob("*"))
    assert run_ship(monkeypatch, "explain", "bolts", str(image), "--json") == 0
    assert json.loads(capsys.readouterr().out)["distance"] == 0.5
    assert sorted(tmp_path.rglob("*")) == before
    assert run_ship(monkeypatch, "explain", "../bolts", str(image)) == 1
    assert "no task name" in capsys.readouterr().err


@pytest.mark.parametrize("working", ["caps/train/good", "caps/train", "caps"])
def test_ship_explain_writes_into_no_data_set(
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    working: str,
) -> None:
    image = tmp_path / "caps" / "train" / "good" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(PNG)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / working)
    assert run_ship(monkeypatch, "explain", "bolts", str(image), "--url", url) == 2
    assert "may be a data set" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
