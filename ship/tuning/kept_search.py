"""What a search found, as the text that snapshots of the tuning after it carry along; and its trials as JSON.

An artifact is made once, by whoever ends the tuning: what was tried must outlive the worker that tried it.
The text comes back from a store, so it is read strictly.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ship.errors import ArtifactError, ConfigError
from ship.settings.config import TuneConfig
from ship.settings.search_config import AXES
from ship.tuning.search import SearchResult, Trial

__all__ = ["search_from_note", "search_to_note", "trial_values"]

_SCHEMA = 1
# 256 candidates at most make 512 trials, of less than 400 characters each.
_MAX_NOTE = 1 << 20
_MAX_TRIALS = 1 << 10
_MAX_REASON = 10_000
_MAX_COUNT = 1 << 53
_KEYS = {"schema", "trials", "reason", "num_passes", "tuning_s"}
_TRIAL_KEYS = {one.name for one in fields(Trial)}


def trial_values(trial: Trial) -> dict[str, Any]:
    """A trial as JSON values. JSON has no infinity: the loss of one that failed is None."""
    return {**asdict(trial), "val_loss": trial.val_loss if math.isfinite(trial.val_loss) else None}


def search_to_note(found: SearchResult) -> str | None:
    """The text, all but the settings, which a snapshot has anyway; None if what was tried is not known."""
    if found.num_passes is None:
        return None
    values = {
        "schema": _SCHEMA,
        "trials": [trial_values(trial) for trial in found.trials],
        "reason": found.reason,
        "num_passes": found.num_passes,
        "tuning_s": found.tuning_s,
    }
    return json.dumps(values)


def search_from_note(note: str, config: TuneConfig) -> SearchResult:
    """Undo ``search_to_note``; anything unexpected is refused.

    Args:
        note: The text.
        config: The settings that the search chose.

    Raises:
        ArtifactError: Says what is not as expected.
    """
    try:
        if len(note) > _MAX_NOTE:
            raise ValueError(f"{len(note)} characters, expected at most {_MAX_NOTE}")
        values = json.loads(note)
        if problem := _find_problem(values):
            raise ValueError(problem)
        trials = tuple(map(_read_trial, values["trials"]))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"snapshot: what the search found cannot be read: {error!s:.300}") from error
    return SearchResult(
        config=config,
        trials=trials,
        reason=values["reason"],
        num_passes=values["num_passes"],
        tuning_s=values["tuning_s"],
    )


def _find_problem(values: Any) -> str | None:
    """The first of what is not as expected, if anything."""
    if not isinstance(values, dict) or not _is_count(schema := values.get("schema")) or schema != _SCHEMA:
        return f"expected a JSON object of schema {_SCHEMA}"
    if set(values) != _KEYS:
        return f"expected exactly {', '.join(sorted(_KEYS))}, found {sorted(values)!r:.120}"
    trials, reason = values["trials"], values["reason"]
    if not isinstance(trials, list) or len(trials) > _MAX_TRIALS:
        return f"trials: expected a list of at most {_MAX_TRIALS}"
    # It goes into the artifact's README, a tag and pages.
    if not isinstance(reason, str) or len(reason) > _MAX_REASON or not reason.isprintable():
        return f"reason: expected at most {_MAX_REASON} printable characters"
    if not _is_count(values["num_passes"]):
        return "num_passes: expected a whole number from 0"
    if not _is_number(values["tuning_s"]) or values["tuning_s"] < 0.0:
        return "tuning_s: expected a number from 0"
    return None


def _read_trial(values: Any) -> Trial:
    if not isinstance(values, dict) or set(values) != _TRIAL_KEYS:
        raise ValueError(f"trials: expected exactly {', '.join(sorted(_TRIAL_KEYS))} of each")
    loss, accuracy = values["val_loss"], values["val_accuracy"]
    checks = {
        "round": _is_count(values["round"]),
        "epochs": _is_count(values["epochs"]),
        "settings": _are_settings(values["settings"]),
        "val_loss": loss is None or _is_number(loss),
        "val_accuracy": _is_number(accuracy) and 0.0 <= accuracy <= 1.0,
    }
    for name, is_good in checks.items():
        if not is_good:
            raise ValueError(f"trials: {name}: found {values[name]!r:.80}")
    return Trial(**{**values, "val_loss": math.inf if loss is None else loss})


def _are_settings(values: Any) -> bool:
    if not isinstance(values, Mapping) or not set(values) <= set(AXES):
        return False
    try:
        config = TuneConfig(**values)
    except ConfigError:
        return False
    # A setting of None stands for a default there, and here for damage.
    return all(getattr(config, name) == value for name, value in values.items())


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)
