"""The one connection to MLflow: opened at first use, quick to give up, its errors translated.

Nothing global of MLflow's is set: ``mlflow.set_tracking_uri`` of the caller's program stays as it is.
"""

import hashlib
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.errors import RegistryError
from orchestrator.private_files import make_private_folder, open_private
from ship.redaction import Url

__all__ = [
    "EXPERIMENT",
    "MlflowSession",
    "NotRegisteredError",
    "RegistryDenied",
    "RegistryDown",
    "RegistryMissing",
]

EXPERIMENT = "ship"
# Of the experiment: the identity of the registry, see `find_identity`.
_IDENTITY_TAG = "ship.registry"
# Of the experiment, too: MLflow's page shows it as one of model training, and does not guess or ask.
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"
# MLflow's own defaults retry for four minutes. Records wait in a spool and readers keep what they have, so it
# is better to know within seconds. They can be set by environment alone; what the user has set stays.
# Telemetry: tuning must work without a network, and send nothing outside of it. URLs: standard output is for
# what the user asked for, such as JSON.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Permanent refusals: a retry does not help.
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_LIMIT_EXCEEDED",
}
# What no retry mends, though a person can: the caller's rights, and a database that cannot be written to.
_DENIALS = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
# A database's own words, which MLflow hands on under codes of transient errors; and those of gateways.
_DENIED = re.compile(
    r"read-?only|disk is full|disk full|no space left|disk quota|(?:access|permission|command) denied|"
    r"forbidden|unauthori[sz]ed|not authori[sz]ed|must be owner",
    re.IGNORECASE,
)
_IDENTITY = re.compile(r"[0-9a-f]{32}")
_NOISY_LOGGERS = ("alembic", "mlflow.store.db.utils", "mlflow.tracking")
_DATABASES = {"sqlite", "postgresql", "mysql", "mssql"}


class RegistryDown(RegistryError):  # noqa: N818 - reads as a fact
    """MLflow did not answer, or failed in a transient way: the same call may work later."""


class NotRegisteredError(RegistryError):
    """MLflow has no such model or version."""


class RegistryMissing(RegistryDown):
    """There is no MLflow in the file or database: nothing was ever recorded there."""


class RegistryDenied(RegistryDown):
    """MLflow answers and does not let this user write, or cannot: no call works before that is mended."""


class MlflowSession:
    """A connection to one MLflow.

    Args:
        tracking_uri: MLflow's, as in ``MLFLOW_TRACKING_URI``; runs and registered models are both there.
        artifact_location: Where files of runs go, if this session makes the experiment; None leaves it to
            MLflow.
        may_create: Whether a database that is not there is made. Only what records may: an empty registry
            that a reader made would look like one whose tasks were all deleted.
    """

    def __init__(
        self, tracking_uri: str, artifact_location: str | None = None, *, may_create: bool = False
    ) -> None:
        self._tracking_uri = Url(tracking_uri)
        self._artifact_location = artifact_location
        self._may_create = may_create

    @property
    def tracking_uri(self) -> str:
        """The URI with its credentials, for MLflow alone."""
        return self._tracking_uri.reveal()

    @property
    def where(self) -> str:
        """The URI without credentials, for messages."""
        return str(self._tracking_uri)

    @property
    def is_server(self) -> bool:
        """Whether MLflow is a server over HTTP, rather than a database opened here."""
        return urlsplit(self._tracking_uri).scheme in ("http", "https")

    def private_folder(self, files_uri: str) -> Path | None:
        """Folder of a run's files, if it is in the home of this user; those of a server are the server's."""
        if self._artifact_location is None or not files_uri.startswith(f"{self._artifact_location}/"):
            return None
        return Path(unquote(urlsplit(files_uri).path))

    def check_exists(self) -> None:
        """See that an MLflow in a file is there. Opening one that is not would make it, and find it empty.

        Raises:
            RegistryMissing: It is not there.
        """
        if urlsplit(self._tracking_uri).scheme.partition("+")[0] != "sqlite":
            return
        import sqlalchemy

        database = sqlalchemy.make_url(self.tracking_uri).database
        if not database or not os.path.isfile(database.removeprefix("file:")):
            raise self._missing()

    def _missing(self) -> "RegistryMissing":
        return RegistryMissing(
            f"there is no MLflow at {self.where}; set MLFLOW_TRACKING_URI or SHIP_HOME, or run `ship tune`, "
            "which makes one"
        )

    @cached_property
    def client(self) -> Any:
        """``mlflow.MlflowClient``; opened now, if it was not yet.

        Raises:
            RegistryMissing: It is not there, and this session may not make one.
            RegistryDown: It cannot be reached.
        """
        if not self._may_create:
            self.check_exists()
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Imported here: it takes two seconds, reads the variables above, and not every command needs it.
        from mlflow import MlflowClient

        with self.errors("open"), _quiet():
            uri, tables = self._open_database()
            if tables is not None and "experiments" not in tables and not self._may_create:
                raise self._missing()
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            if uri != self.tracking_uri:
                # MLflow connects for registered models at their first use, and tries for minutes if it fails.
                client.search_registered_models(max_results=1)
            return client

    @cached_property
    def experiment_id(self) -> str:
        """Id of the experiment ``ship``; made now, if there is none.

        Raises:
            RegistryDenied: It was deleted by hand, and can be restored; or this user may not make it.
            RegistryDown: MLflow cannot be reached.
        """
        client = self.client
        with self.errors(f"find the experiment {EXPERIMENT!r}"):
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                return str(
                    client.create_experiment(
                        EXPERIMENT,
                        artifact_location=self._artifact_location,
                        tags={_IDENTITY_TAG: uuid.uuid4().hex, _KIND_TAG: _KIND},
                    )
                )
            if self._may_create and found.lifecycle_stage == "active" and _KIND_TAG not in (found.tags or {}):
                client.set_experiment_tag(found.experiment_id, _KIND_TAG, _KIND)
        if found.lifecycle_stage != "active":
            raise RegistryDenied(
                f"MLflow at {self.where}: the experiment {EXPERIMENT!r} was deleted; restore it with "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
            )
        return str(found.experiment_id)

    def find_identity(self) -> str | None:
        """Identity of the registry, which moves with its database; None if nothing was recorded there yet.

        Raises:
            RegistryMissing: There is no such database. None is made.
            RegistryDown: It cannot be reached, or does not let this user see the experiment.
        """
        with self.errors(f"find the experiment {EXPERIMENT!r}"):
            found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            return None
        tagged = str((found.tags or {}).get(_IDENTITY_TAG, ""))
        # One that was made before there were identities: what the database says of its making.
        made = f"{found.experiment_id}/{found.creation_time}"
        return tagged if _IDENTITY.fullmatch(tagged) else hashlib.sha256(made.encode()).hexdigest()[:32]

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Translate what MLflow raises inside.

        Raises:
            RegistryDown: It did not answer, or failed in a transient way.
            RegistryDenied: It does not let this user in or write, or cannot write itself.
            NotRegisteredError: It has no such model or version.
            RegistryError: It refused.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        # `from None`: the original text may hold the password of the URI, and tracebacks are logged.
        except MlflowException as error:
            raise self._translate(doing, error.error_code, error) from None
        except (SQLAlchemyError, OSError) as error:
            raise self._translate(doing, None, error) from None

    def _open_database(self) -> tuple[str, set[str] | None]:
        """The URI for MLflow, with time limits if it is a database, and that one's tables.

        It is connected to once: MLflow itself would try for over a minute before it gave up.
        """
        scheme = self.tracking_uri.partition(":")[0].partition("+")[0]
        if scheme not in _DATABASES:
            return self.tracking_uri, None
        import sqlalchemy

        from orchestrator.registry.time_limits import with_time_limits

        try:
            url = sqlalchemy.make_url(self.tracking_uri)
        except ValueError:
            # Its text holds a part of the password.
            raise RegistryDown(
                f"MLFLOW_TRACKING_URI={self.where}: no URL of a database; write @, : and / in a user or "
                "password as %40, %3A and %2F"
            ) from None
        if scheme == "sqlite":
            _make_file(url.database)
        uri = with_time_limits(self.tracking_uri)
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        return uri, set(sqlalchemy.inspect(engine).get_table_names())

    def _translate(self, doing: str, code: str | None, error: Exception) -> RegistryError:
        detail = self._tracking_uri.redact(str(error)).strip().split("\n")[0][:500]
        if code == "RESOURCE_DOES_NOT_EXIST":
            return NotRegisteredError(f"MLflow at {self.where} refused to {doing}: {detail}")
        if code in _REFUSALS:
            return RegistryError(f"MLflow at {self.where} refused to {doing}: {detail}")
        if code in _DENIALS or _DENIED.search(detail):
            return RegistryDenied(
                f"MLflow at {self.where} did not {doing}: {detail}; check this user's rights there, "
                "whether it is read-only or full, and MLFLOW_TRACKING_URI"
            )
        return RegistryDown(
            f"MLflow at {self.where} did not {doing}: {detail}; check that it runs, and MLFLOW_TRACKING_URI"
        )


def _make_file(database: str | None) -> None:
    """Make the file of a database that is to be made, which SQLite would make for others to read."""
    if not database or database.startswith((":memory:", "file:")) or os.path.exists(database):
        return
    if not (folder := Path(database).absolute().parent).is_dir():
        make_private_folder(folder)
    with open(database, "ab", opener=open_private):
        pass


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence MLflow's log of fifty migrations when it makes a database."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
