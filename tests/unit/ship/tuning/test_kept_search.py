"""The text by which snapshots carry what a search found."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ship.errors import ArtifactError
from ship.settings.config import TuneConfig
from ship.tuning.kept_search import search_from_note, search_to_note, trial_values
from ship.tuning.search import SearchResult, Trial
from tests.unit.json_changes import changed, written

CONFIG = TuneConfig(learning_rate=0.003)
SETTINGS = {
    "kind": "ship+lora",
    "head": "layers",
    "augment": "rotations",
    "rank": 8,
    "learning_rate": 0.1 + 0.2,
    "weight_decay": 1e-05,
    "num_independent": 3,
    "threshold": "auto",
}
TRIAL = Trial(round=1, settings=SETTINGS, epochs=6, val_loss=0.1 + 0.7, val_accuracy=1 / 3)
FAILED = replace(TRIAL, settings={**SETTINGS, "threshold": 0.95}, val_loss=math.inf, val_accuracy=0.0)
FOUND = SearchResult(
    config=CONFIG, trials=(TRIAL, FAILED), reason="learning_rate 0.003 wins.", num_passes=384, tuning_s=1.25
)


def values_of(found: SearchResult) -> dict[str, Any]:
    note = search_to_note(found)
    assert note is not None
    values: dict[str, Any] = json.loads(note)
    return values


@pytest.mark.parametrize("found", [FOUND, SearchResult(config=CONFIG)])
def test_what_was_found_is_read_back(found: SearchResult) -> None:
    note = search_to_note(found)
    assert note is not None
    again = search_from_note(note, CONFIG)
    assert (again, again.tuning_s) == (found, found.tuning_s)
    assert "Infinity" not in note


def test_a_search_that_is_not_known_has_no_note() -> None:
    assert search_to_note(replace(FOUND, num_passes=None)) is None


def test_the_largest_search_is_read_back() -> None:
    # Rounds of 256, 128 and so on to 2 candidates, and linear probes on two heads.
    long = replace(TRIAL, settings={**SETTINGS, "threshold": -1 / 3}, epochs=100_000)
    note = search_to_note(replace(FOUND, trials=(long,) * 512, reason="x" * 10_000))
    assert note is not None
    assert len(search_from_note(note, CONFIG).trials) == 512


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 1"),
        ({"brand_new": 1}, "expected exactly"),
        ({"trials": {}}, "trials"),
        ({"trials": [trial_values(TRIAL)] * 1025}, "at most 1024"),
        ({"trials": [{}]}, "trials: expected exactly"),
        ({"trials": [{**trial_values(TRIAL), "val_loss": math.nan}]}, "val_loss: found nan"),
        ({"trials": [{**trial_values(TRIAL), "val_loss": math.inf}]}, "val_loss: found inf"),
        ({"trials": [{**trial_values(TRIAL), "epochs": -1}]}, "epochs: found -1"),
        ({"trials": [{**trial_values(TRIAL), "settings": {"seed": 1}}]}, "settings"),
        ({"trials": [{**trial_values(TRIAL), "settings": {"learning_rate": None}}]}, "settings"),
        ({"trials": [{**trial_values(TRIAL), "settings": {"kind": "<b>"}}]}, "settings"),
        ({"reason": "a\nb"}, "reason"),
        ({"reason": "\ud800"}, "reason"),
        ({"reason": "x" * 10_001}, "reason"),
        ({"num_passes": True}, "num_passes"),
        ({"num_passes": 10**400}, "num_passes"),
        ({"tuning_s": math.inf}, "tuning_s"),
        ({"tuning_s": -1.0}, "tuning_s"),
    ],
)
def test_what_is_not_as_expected_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtifactError, match=f"what the search found cannot be read: .*{words}"):
        search_from_note(json.dumps({**values_of(FOUND), **change}), CONFIG)


@pytest.mark.parametrize("note", ["", "[", "[" * 100_000, "null", " " * (1 << 21), "1" * 5000])
def test_what_is_no_such_text_is_refused(note: str) -> None:
    with pytest.raises(ArtifactError, match="what the search found cannot be read"):
        search_from_note(note, CONFIG)


@settings(
    derandomize=True, max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    values = values_of(FOUND)
    if data.draw(st.booleans()):
        note = json.dumps(data.draw(changed(values)))
    else:
        note = data.draw(written(json.dumps(values).encode())).decode(errors="replace")
    try:
        found = search_from_note(note, CONFIG)
    except ArtifactError:
        return
    json.dumps([trial_values(trial) for trial in found.trials], allow_nan=False)
    assert found.reason.encode()
    assert found.num_passes is not None
    assert found.num_passes + found.tuning_s >= 0.0
