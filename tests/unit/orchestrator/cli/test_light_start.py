"""What is asked for often loads no heavy package, which would take longer than the answer."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from orchestrator.registry.database_file import SCHEMA_REVISIONS

# As MLflow 3.17 makes them, as far as a listing reads them.
MLFLOW_TABLES = """
    CREATE TABLE alembic_version (version_num);
    CREATE TABLE registered_models (name, creation_time, last_updated_time, workspace);
    CREATE TABLE registered_model_tags (name, key, value, workspace);
    CREATE TABLE registered_model_aliases (name, alias, version, workspace);
    CREATE TABLE model_versions
        (name, version, source, run_id, creation_time, current_stage, workspace);
    CREATE TABLE model_version_tags (name, version, key, value, workspace);
    INSERT INTO registered_models VALUES ('ship.bolts', 1000, 2000, 'default');
    INSERT INTO registered_model_aliases VALUES ('ship.bolts', 'champion', 1, 'default');
    INSERT INTO model_versions VALUES ('ship.bolts', 1, 'file:///a', NULL, 1000, 'None', 'default');
"""


def test_help_loads_no_heavy_package() -> None:
    heavy = ("torch", "ray", "mlflow")
    code = f"import sys, orchestrator.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_listing_loads_no_heavy_package(tmp_path: Path) -> None:
    """It is asked for often, and MLflow's import alone takes seconds."""
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as file:
        file.executescript(MLFLOW_TABLES)
        file.execute("INSERT INTO alembic_version VALUES (?)", sorted(SCHEMA_REVISIONS)[:1])
        digest = ("ship.bolts", 1, "ship.digest", "0" * 64, "default")
        file.execute("INSERT INTO model_version_tags VALUES (?, ?, ?, ?, ?)", digest)
        file.commit()
    heavy = (
        "torch",
        "timm",
        "numpy",
        "ray",
        "mlflow",
        "pandas",
        "sklearn",
        "matplotlib",
        "sqlalchemy",
        "boto3",
    )
    code = (
        "import sys; from orchestrator.cli.main import cli; "
        f"cli(['--home', {str(tmp_path)!r}, 'ls', '--json'], standalone_mode=False); "
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    [task] = json.loads(done.stdout)
    assert (task["task"], task["champion"]["digest"]) == ("bolts", "0" * 64)
    assert done.stderr.strip() == "[]"
