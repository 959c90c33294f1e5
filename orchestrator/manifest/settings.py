"""Readers of a manifest's settings: tuning, search, limits on data, tags and terms.

Each returns the valid values and notes the problems of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from orchestrator.manifest.floors import Floors
from orchestrator.manifest.model import TERMS, DataLimits, Terms
from orchestrator.manifest.problems import Problems, describe_value
from orchestrator.manifest.schema import find_tag_problem
from orchestrator.manifest.yaml_document import Place
from ship.data import DataSource
from ship.errors import ConfigError
from ship.settings.config import TuneConfig
from ship.settings.presets import PRESETS, Preset
from ship.settings.search_config import AUTO, SearchConfig
from ship.settings.view import View

__all__ = ["Defaults", "as_dict", "read_defaults", "read_limits", "read_task_settings", "without_none"]

# Keys of ``defaults`` beside the settings of tuning.
_OTHER_DEFAULTS = ("data", "tags", "view", "gate", "thumbnails", *TERMS)
_ANY_PATH = "data"


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Defaults of every task, which a task's own values override.

    Attributes:
        settings: Settings of ``TuneConfig`` that the manifest gives.
        data: Settings of ``DataSource`` that the manifest gives, without a path.
        view: Settings of ``View`` that the manifest gives.
        tags: Tags.
        terms: Priority, deadline and budget.
        gate: Settings of ``Floors`` that the manifest gives.
        thumbnails: Whether small pictures of mistakes are kept.
        preset: Preset, if any.
        search: Search, if any.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    gate: Mapping[str, Any] = field(default_factory=dict)
    thumbnails: bool = True
    preset: Preset | None = None
    search: SearchConfig | None = None


def read_defaults(problems: Problems, manifest: Mapping[str, Any]) -> Defaults:
    """Read ``defaults``, ``preset`` and ``search`` of a manifest."""
    place: Place = ("defaults",)
    values = without_none(as_dict(manifest.get("defaults")))
    settings = {name: value for name, value in values.items() if name not in _OTHER_DEFAULTS}
    preset = manifest.get("preset")
    for name in ("preset", "search"):
        if settings.pop(name, None) is not None:
            problems.note(
                (*place, name), f"{name!r} of all tasks stands beside `defaults`, at the top of the manifest"
            )
    for name in ("data", "tags", "view", "gate"):
        if name in values and not isinstance(values[name], dict):
            problems.note((*place, name), f"expected a mapping, got {describe_value(values[name])}")
    thumbnails = values.get("thumbnails", True)
    if not isinstance(thumbnails, bool):
        problems.note((*place, "thumbnails"), f"expected true or false, got {describe_value(thumbnails)}")
    return Defaults(
        settings=_read_settings(problems, place, settings, known_beside=_OTHER_DEFAULTS),
        data=_read_data(problems, (*place, "data"), values.get("data")),
        view=_read_view(problems, (*place, "view"), values.get("view"), {}),
        tags=_read_tags(problems, (*place, "tags"), values.get("tags")),
        terms=_read_terms(problems, place, values, Terms()),
        gate=_read_gate(problems, (*place, "gate"), values.get("gate"), {}),
        thumbnails=thumbnails is True,
        preset=preset if preset in PRESETS else None,
        search=_read_search(problems, ("search",), manifest.get("search")),
    )


def read_task_settings(
    problems: Problems, place: Place, values: Mapping[str, Any], defaults: Defaults
) -> dict[str, Any] | None:
    """All fields of a ``TaskEntry`` but its name and data; None if its settings make no ``TuneConfig``.

    Args:
        problems: Collects the problems.
        place: Place of ``values``.
        values: A task, or a folder of tasks, without empty keys.
        defaults: Defaults of the manifest.
    """
    config = _read_config(problems, (*place, "config"), values.get("config"), defaults)
    view = _read_view(problems, (*place, "view"), values.get("view"), defaults.view)
    tags = {**defaults.tags, **_read_tags(problems, (*place, "tags"), values.get("tags"))}
    terms = _read_terms(problems, place, values, defaults.terms)
    gate = _read_gate(problems, (*place, "gate"), values.get("gate"), defaults.gate)
    preset = values.get("preset", defaults.preset)
    search = (
        _read_search(problems, (*place, "search"), values["search"])
        if "search" in values
        else defaults.search
    )
    named = {**defaults.settings, **as_dict(values.get("config"))}
    auto = frozenset(name for name in AUTO if named.get(name) == "auto")
    return (
        None
        if config is None
        else {
            "view": View(**view),
            "config": config,
            "tags": tags,
            "terms": terms,
            "floors": Floors(**gate),
            "thumbnails": values.get("thumbnails", defaults.thumbnails) is True,
            "preset": preset if preset in PRESETS else None,
            "search": search,
            "pinned": frozenset(named) - auto if preset is not None else frozenset(),
            "auto": auto,
        }
    )


def read_limits(problems: Problems, value: object) -> DataLimits:
    """Read ``checks`` of a manifest."""
    place: Place = ("checks",)
    if not isinstance(value, dict):
        return DataLimits()
    known = problems.known_only(place, without_none(value), [field.name for field in fields(DataLimits)])
    try:
        return DataLimits(**known)
    except ConfigError as error:
        problems.note_fields(place, known, error.problems)
        return DataLimits()


def as_dict(value: object) -> dict[str, Any]:
    """``value`` if it is a mapping, else an empty one; the schema has noted the problem."""
    return value if isinstance(value, dict) else {}


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without its empty keys."""
    return {key: value for key, value in values.items() if value is not None}


def _read_settings(
    problems: Problems, place: Place, values: Mapping[str, Any], known_beside: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Settings of ``TuneConfig`` that are valid on their own."""
    names = [field.name for field in fields(TuneConfig)]
    known = problems.known_only(place, values, [*names, *known_beside])
    try:
        TuneConfig(**_without_auto(known))
    except ConfigError as error:
        wrong = problems.note_fields(place, known, error.problems)
        return {name: value for name, value in known.items() if name not in wrong}
    return known


def _read_config(problems: Problems, place: Place, values: object, defaults: Defaults) -> TuneConfig | None:
    own = _read_settings(problems, place, as_dict(values))
    try:
        return TuneConfig(**_without_auto({**defaults.settings, **own}))
    except ConfigError as error:
        # Each is valid on its own, but their combination is not.
        problems.note_fields(place, own, error.problems)
        return None


def _without_auto(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that a search chooses."""
    return {name: value for name, value in settings.items() if name not in AUTO or value != "auto"}


def _read_data(problems: Problems, place: Place, values: object) -> dict[str, Any]:
    """Settings of ``DataSource`` for all tasks, each valid on its own."""
    names = [each.name for each in fields(DataSource) if each.name != "path"]
    known = problems.known_only(place, without_none(as_dict(values)), names)
    try:
        DataSource(path=_ANY_PATH, **known)
    except ConfigError as error:
        wrong = problems.note_fields(place, known, error.problems)
        return {name: value for name, value in known.items() if name not in wrong}
    return dict(known)


def _read_view(
    problems: Problems, place: Place, values: object, defaults: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Settings of ``View`` over the defaults; the defaults alone if they are wrong."""
    return {**defaults, **_read_own(problems, place, values, View)}


def _read_gate(
    problems: Problems, place: Place, values: object, defaults: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Settings of ``Floors`` over the defaults, recalls by class; the defaults alone if they are wrong."""
    own = _read_own(problems, place, values, Floors)
    recalls = {**defaults.get("recall", {}), **own.get("recall", {})}
    return {**defaults, **own, **({"recall": recalls} if recalls else {})}


def _read_own(
    problems: Problems, place: Place, values: object, kind: type[View] | type[Floors]
) -> dict[str, Any]:
    """A task's own settings of ``kind``; none of them if some are wrong."""
    own = problems.known_only(place, without_none(as_dict(values)), [each.name for each in fields(kind)])
    try:
        kind(**own)
    except ConfigError as error:
        problems.note_fields(place, own, error.problems)
        return {}
    return dict(own)


def _read_search(problems: Problems, place: Place, value: object) -> SearchConfig | None:
    if value is None:
        return None
    if value is False:
        return SearchConfig()
    if not isinstance(value, dict):
        problems.note(place, f"expected lists of values by setting, or false, got {describe_value(value)}")
        return None
    known = problems.known_only(place, value, [field.name for field in fields(SearchConfig)])
    lists: dict[str, Any] = {
        name: tuple(entry) if isinstance(entry, list) else entry for name, entry in known.items()
    }
    try:
        return SearchConfig(**lists)
    except (ConfigError, TypeError) as error:
        found = error.problems if isinstance(error, ConfigError) else (str(error),)
        problems.note_fields(place, known, found)
        return None


def _read_tags(problems: Problems, place: Place, tags: object) -> dict[str, str]:
    if not isinstance(tags, dict):
        return {}
    for key, value in tags.items():
        if problem := find_tag_problem(key, value):
            problems.note((*place, key), problem)
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in tags.items()}


def _read_terms(problems: Problems, place: Place, values: Mapping[str, Any], defaults: Terms) -> Terms:
    given: dict[str, Any] = {}
    for name, (attribute, parse) in TERMS.items():
        if values.get(name) is None:
            continue
        try:
            given[attribute] = parse(values[name])
        except ValueError as error:
            problems.note((*place, name), f"{error}, got {describe_value(values[name])}")
    return replace(defaults, **given)
