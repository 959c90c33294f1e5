"""Read-only listing of the registered models in MLflow's SQLite file, without importing MLflow.

The import takes seconds, which is most of the time of a listing. A file is read here only if its schema has a
revision that this module knows; every other one is left to MLflow.
"""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["SCHEMA_REVISIONS", "StoredModel", "StoredVersion", "read_models", "read_revisions"]

# Of MLflow 3.17. A test compares this listing with MLflow's own, and fails at an unknown revision.
SCHEMA_REVISIONS = frozenset({"dc11669786a5"})
_PREFIX = "sqlite:///"
_PROMPT_TAG = "mlflow.prompt.is_prompt"
# MLflow marks deleted versions and keeps their rows. One workspace: others have to be asked for. SQLite
# takes the tables of a CROSS JOIN in that order; left to itself it reads all versions for each listed one.
_PRESENT = "workspace = 'default' AND current_stage IS NOT 'Deleted_Internal'"
_LISTED = f"""
    WITH listed AS (
        SELECT name, max(version) AS version FROM model_versions WHERE {_PRESENT} GROUP BY name
        UNION SELECT name, version FROM registered_model_aliases WHERE workspace = 'default'
    )
"""
_ROWS_OF = {
    "models": "SELECT name, creation_time, last_updated_time FROM registered_models "
    "WHERE workspace = 'default'",
    "tags": "SELECT name, key, value FROM registered_model_tags WHERE workspace = 'default'",
    "aliases": "SELECT name, alias, version FROM registered_model_aliases WHERE workspace = 'default'",
    "versions": f"{_LISTED} SELECT name, version, source, run_id, creation_time FROM listed "
    f"CROSS JOIN model_versions USING (name, version) WHERE {_PRESENT}",
    "version_tags": f"{_LISTED} SELECT name, version, key, value FROM listed "
    "CROSS JOIN model_version_tags USING (name, version) WHERE workspace = 'default'",
}


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """The attributes of MLflow's ``ModelVersion`` that a listing needs."""

    version: int
    source: str | None
    run_id: str | None
    creation_timestamp: int
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """The attributes of MLflow's ``RegisteredModel`` that a listing needs.

    Attributes:
        latest_versions: The newest version, and all that an alias names.
    """

    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    latest_versions: tuple[StoredVersion, ...]


def read_models(tracking_uri: str) -> list[StoredModel] | None:
    """All registered models; None if MLflow itself has to be asked: no such file, or another schema."""
    path = tracking_uri.removeprefix(_PREFIX)
    if path == tracking_uri or "?" in path or not os.path.isfile(path):
        return None
    if os.environ.get("MLFLOW_ENABLE_WORKSPACES"):
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)) as file:
            # A row that is no UTF-8 is no reason to list none.
            file.text_factory = lambda text: text.decode(errors="replace")
            file.execute("BEGIN")
            revisions = {revision for (revision,) in file.execute("SELECT version_num FROM alembic_version")}
            if not revisions or not revisions <= SCHEMA_REVISIONS:
                return None
            rows = {name: file.execute(query).fetchall() for name, query in _ROWS_OF.items()}
    except sqlite3.Error:
        return None
    return _assemble(**rows)


def read_revisions(tracking_uri: str) -> frozenset[str] | None:
    """Revisions of the schema of MLflow's SQLite file; None of another MLflow, or a file that is none."""
    path = tracking_uri.removeprefix(_PREFIX)
    if path == tracking_uri or "?" in path or not os.path.isfile(path):
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as file:
            return frozenset(found for (found,) in file.execute("SELECT version_num FROM alembic_version"))
    except sqlite3.Error:
        return None


def _assemble(
    models: Iterable[tuple[str, int, int]],
    tags: Iterable[tuple[str, str, str]],
    aliases: Iterable[tuple[str, str, int]],
    versions: Iterable[tuple[str, int, str | None, str | None, int]],
    version_tags: Iterable[tuple[str, int, str, str]],
) -> list[StoredModel]:
    tags_of: dict[str, dict[str, str]] = defaultdict(dict)
    aliases_of: dict[str, dict[str, int]] = defaultdict(dict)
    tags_of_version: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    versions_of: dict[str, list[StoredVersion]] = defaultdict(list)
    for name, key, value in tags:
        tags_of[name][key] = value
    for name, alias, version in aliases:
        aliases_of[name][alias] = version
    for name, version, key, value in version_tags:
        tags_of_version[name, version][key] = value
    for name, version, source, run_id, created in versions:
        found = StoredVersion(
            version=version,
            source=source,
            run_id=run_id,
            creation_timestamp=created,
            tags=tags_of_version[name, version],
        )
        versions_of[name].append(found)
    return [
        StoredModel(
            name=name,
            creation_timestamp=created,
            last_updated_timestamp=updated,
            tags=tags_of[name],
            aliases=aliases_of[name],
            latest_versions=tuple(versions_of[name]),
        )
        for name, created, updated in models
        # As MLflow's own listing: a prompt for a language model is no model.
        if _PROMPT_TAG not in tags_of[name]
    ]
