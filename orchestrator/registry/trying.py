"""A record's way into MLflow, tried before anything is tuned."""

import logging
from contextlib import suppress

from orchestrator.errors import RegistryError
from orchestrator.registry.session import MlflowSession, RegistryDenied, RegistryDown, RegistryMissing

__all__ = ["try_writing"]

_TAG = "ship.tried"
_TAKE = "take a record"
_PATH = "/api/2.0/mlflow/experiments/set-experiment-tag"
_logger = logging.getLogger(__name__)


def try_writing(session: MlflowSession) -> None:
    """Write to the experiment, which is made if there is none, and remove what was written.

    A database in a file that is not there is left to be made by the first record.

    Args:
        session: A connection that may make the database.

    Raises:
        RegistryDenied: This user may not write, or MLflow itself cannot.
        RegistryError: MLflow refuses for another reason that stays, such as a limit.
        RegistryDown: It cannot be reached, or fails in a transient way.
    """
    with suppress(RegistryMissing):
        session.check_exists()
        _write(session, session.experiment_id)
        try:
            with session.errors("delete a tag"):
                session.client.delete_experiment_tag(session.experiment_id, _TAG)
        except RegistryDenied:
            raise
        except RegistryError as error:
            # Old servers cannot. The one tag stays, and no record takes a deletion of tags.
            _logger.debug("%s", error)


def _write(session: MlflowSession, experiment: str) -> None:
    try:
        with session.errors(_TAKE):
            session.client.set_experiment_tag(experiment, _TAG, "may be deleted")
    except RegistryDenied:
        raise
    except RegistryDown:
        if session.is_server:
            with session.errors(_TAKE):
                _ask_plainly(session, experiment)
        raise


def _ask_plainly(session: MlflowSession, experiment: str) -> None:
    """Raise with the server's own words: MLflow's client drops them when it has tried a request again."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    body = {"experiment_id": experiment, "key": _TAG, "value": "may be deleted"}
    place = get_default_host_creds(session.tracking_uri)
    reply = http_request(place, _PATH, "POST", json=body, max_retries=0, raise_on_status=False)
    verify_rest_response(reply, _PATH)
