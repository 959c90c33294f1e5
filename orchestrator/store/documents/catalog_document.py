"""The strict model of the catalog's JSON, of this schema and of the earlier ones."""

import json
import zlib
from collections.abc import Set
from typing import Annotated, Any, NotRequired, Self

from pydantic import Field, StringConstraints, model_validator, with_config
from typing_extensions import TypedDict

from orchestrator.errors import StoreError
from orchestrator.store.documents.catalog import (
    MAX_CONTENT_BYTES,
    SCHEMA_VERSION,
    BrokenEntry,
    Canary,
    CatalogEntry,
    IdleTask,
)
from orchestrator.store.documents.document import STRICT, Digest, Document, TaskName

__all__ = ["read_catalog"]

Version = Annotated[int, Field(ge=1)]
VersionKey = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
_ADVICE = "update this program, or delete the catalog, and it is written anew"
_ENTRY = {"version", "digest", "others", "canary", "shadow"}
# Keys of the catalog and of its entries by schema. The first had the champion alone; the first two had a
# fingerprint that was never written; the first four had no decision rules.
_KEYS = {
    1: {"schema_", "backbone_fingerprint", "tasks"},
    2: {"schema_", "backbone_fingerprint", "tasks"},
    3: {"schema_", "tasks"},
    4: {"schema_", "registry", "tasks"},
    SCHEMA_VERSION: {"schema_", "registry", "tasks", "idle"},
}
_ENTRY_KEYS = {1: {"version", "digest"}, 2: _ENTRY, 3: _ENTRY, 4: _ENTRY, SCHEMA_VERSION: _ENTRY}
_GZIP = b"\x1f\x8b"


_States = tuple[dict[str, CatalogEntry], dict[str, IdleTask], str | None]


def read_catalog(
    content: bytes,
) -> tuple[dict[str, CatalogEntry], dict[str, IdleTask], str | None, dict[str, BrokenEntry]]:
    """The entries by task, the idle tasks, the registry that they are of, and what is wrong with others.

    Raises:
        StoreError: It is not a catalog; lists all problems.
    """
    unpacked = _unpack(content)
    try:
        return (*_read(unpacked), {})
    except StoreError as error:
        whole = error
    return _read_apart(unpacked, whole)


def _read(content: bytes) -> _States:
    document = _Document.read(content, "catalog", _ADVICE)
    entries = {task: _make_entry(values) for task, values in document.tasks.items()}
    idle = {task: _make_idle(values) for task, values in document.idle.items()}
    return entries, idle, document.registry


def _read_apart(
    content: bytes, whole: StoreError
) -> tuple[dict[str, CatalogEntry], dict[str, IdleTask], str | None, dict[str, BrokenEntry]]:
    """The same, each entry by itself; raises the error of the whole if more than entries are broken."""
    found = _parts_of(content)
    if found is None:
        raise whole
    empty, parts, registry = found
    entries: dict[str, CatalogEntry] = {}
    idle: dict[str, IdleTask] = {}
    broken: dict[str, BrokenEntry] = {}
    for name, of_tasks in parts.items():
        for task, state in of_tasks.items():
            try:
                served, waiting, _ = _read(json.dumps({**empty, name: {task: state}}).encode())
            except StoreError as error:
                broken[task] = BrokenEntry(problem=error.problems[0], place=name, values=state)
                continue
            entries |= served
            idle |= waiting
    for task in entries.keys() & idle.keys():
        # Which of the two counts is not known.
        problem = f"catalog: 'idle/{task}': expected a task without a champion; {_ADVICE}"
        both = [of_tasks[task] for of_tasks in parts.values()]
        broken[task] = BrokenEntry(problem=problem, place="tasks", values=both)
        del entries[task], idle[task]
    return entries, idle, registry, broken


def _parts_of(content: bytes) -> tuple[dict[str, Any], dict[str, dict[str, Any]], str | None] | None:
    """A catalog without its entries, these by their place, and its registry; None if it is none."""
    try:
        values = json.loads(content)
        parts = {name: values[name] for name in ("tasks", "idle") if name in values}
        empty = {**values, **{name: {} for name in parts}}
        if not all(isinstance(of_tasks, dict) for of_tasks in parts.values()):
            return None
        return empty, parts, _read(json.dumps(empty).encode())[2]
    except (ValueError, TypeError, AttributeError, RecursionError, StoreError):
        return None


def _unpack(content: bytes) -> bytes:
    if not content.startswith(_GZIP):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(content, MAX_CONTENT_BYTES)
    except zlib.error as error:
        raise StoreError(f"catalog: it cannot be unpacked ({error}); {_ADVICE}") from None
    if not unpacker.eof:
        raise StoreError(
            f"catalog: torn, or more than {MAX_CONTENT_BYTES} bytes when it is unpacked; {_ADVICE}"
        )
    return unpacked


# A catalog has thousands of entries, and a dictionary takes half as long as a model.
@with_config(STRICT)
class _Canary(TypedDict):
    version: Version
    share: Annotated[float, Field(gt=0, lt=1)]


@with_config(STRICT)
class _Entry(TypedDict):
    version: Version
    digest: Digest
    others: NotRequired[dict[VersionKey, Digest]]
    canary: NotRequired[_Canary | None]
    shadow: NotRequired[Version | None]
    rules: NotRequired[dict[Digest, Digest]]


@with_config(STRICT)
class _Idle(TypedDict):
    is_retired: bool
    versions: dict[VersionKey, Digest]
    rules: NotRequired[dict[Digest, Digest]]


class _Document(Document):
    schema_: int = Field(alias="schema", ge=1, le=SCHEMA_VERSION)
    backbone_fingerprint: Any = None
    registry: str | None = None
    tasks: dict[TaskName, _Entry]
    idle: dict[TaskName, _Idle] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.model_fields_set != _KEYS[self.schema_]:
            raise ValueError(f"expected the keys of schema {self.schema_}")
        keys = _ENTRY_KEYS[self.schema_]
        more = {"rules"} if self.schema_ == SCHEMA_VERSION else set()
        found = {task: _find_problem(entry, keys, more) for task, entry in self.tasks.items()}
        if wrong := [f"tasks/{task}: {problem}" for task, problem in found.items() if problem]:
            raise ValueError("; ".join(wrong))
        for task, idle in self.idle.items():
            if idle.get("rules", {}).keys() - idle["versions"].values():
                raise ValueError(f"idle/{task}: rules: expected rules of the artifacts that are named")
        if both := sorted(self.tasks.keys() & self.idle.keys()):
            raise ValueError(f"idle/{both[0]}: expected tasks without a champion")
        return self


def _find_problem(entry: _Entry, keys: Set[str], more: Set[str]) -> str | None:
    if entry.keys() - more != keys:
        return f"expected exactly the keys {', '.join(sorted(keys))}"
    others, canary, shadow = entry.get("others", {}), entry.get("canary"), entry.get("shadow")
    if str(entry["version"]) in others:
        return "others: expected versions beside the champion"
    if canary is not None and str(canary["version"]) not in others:
        return "canary: expected one of the others"
    if shadow is not None and str(shadow) not in others:
        return "shadow: expected one of the others"
    if entry.get("rules", {}).keys() - {entry["digest"], *others.values()}:
        return "rules: expected rules of the artifacts that are named"
    return None


def _make_entry(values: _Entry) -> CatalogEntry:
    canary = values.get("canary")
    return CatalogEntry(
        version=values["version"],
        digest=values["digest"],
        others={int(version): digest for version, digest in values.get("others", {}).items()},
        canary=None if canary is None else Canary(**canary),
        shadow=values.get("shadow"),
        rules=values.get("rules", {}),
    )


def _make_idle(values: _Idle) -> IdleTask:
    versions = {int(version): digest for version, digest in values["versions"].items()}
    return IdleTask(is_retired=values["is_retired"], versions=versions, rules=values.get("rules", {}))
