"""Time limits of the connections that MLflow opens to a database of its own.

MLflow passes its URI on to SQLAlchemy, which passes the URI's query on to the driver: so do the limits.
What the user's URI says stays. SQLite has a limit on waiting for a lock from the start.

PostgreSQL's library has no limit on waiting for an answer. There the URI names a plugin of SQLAlchemy, which
closes a connection under a call that takes too long, so that the call ends with an error.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import sqlalchemy
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import CreateEnginePlugin

__all__ = ["ReadLimit", "with_time_limits"]

_CONNECT_S, _READ_S = 10, 60
_PLUGIN, _OPTION = "ship_read_limit", "ship_read_timeout"
# A dead peer is found by unanswered probes, and by data that it does not acknowledge.
_LIBPQ = {
    "connect_timeout": str(_CONNECT_S),
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "plugin": _PLUGIN,
    _OPTION: str(_READ_S),
}
_MYSQL = {
    "connect_timeout": str(_CONNECT_S),
    "read_timeout": str(_READ_S),
    "write_timeout": str(_READ_S),
}
_LIMITS = {"psycopg": _LIBPQ, "psycopg2": _LIBPQ, "pymysql": _MYSQL, "mysqldb": _MYSQL}
# All methods of a dialect that wait for the server, with a cursor or a connection as their first argument.
_WAITING = ("do_execute", "do_execute_no_params", "do_executemany", "do_commit", "do_rollback", "do_ping")


def with_time_limits(tracking_uri: str) -> str:
    """The URI of a database with time limits for its driver, where these are known.

    Raises:
        sqlalchemy.exc.ArgumentError: It is no URI of a database.
    """
    url = sqlalchemy.make_url(tracking_uri)
    limits = _LIMITS.get(url.get_driver_name())
    if limits is None:
        return tracking_uri
    plugins.register(_PLUGIN, __name__, ReadLimit.__name__)
    return url.set(query={**limits, **url.query}).render_as_string(hide_password=False)


class ReadLimit(CreateEnginePlugin):
    """SQLAlchemy plugin with a limit on each call that waits for the server, for drivers that have none.

    Args:
        url: URL of the database, with the limit in seconds in its query.
        kwargs: Other arguments of ``sqlalchemy.create_engine``; left as they are.
    """

    def __init__(self, url: sqlalchemy.URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        self._limit_s = float(str(url.query.get(_OPTION, _READ_S)))

    def update_url(self, url: sqlalchemy.URL) -> sqlalchemy.URL:
        """The URL as the driver takes it."""
        return url.difference_update_query([_OPTION])

    def engine_created(self, engine: sqlalchemy.Engine) -> None:
        """Called by SQLAlchemy: bound the calls of this engine's dialect, which is its own."""
        for name in _WAITING:
            bounded = partial(_call_within, self._limit_s, getattr(engine.dialect, name))
            setattr(engine.dialect, name, bounded)


def _call_within(limit_s: float, call: Callable[..., Any], place: Any, *args: Any, **kwargs: Any) -> Any:
    timer = threading.Timer(limit_s, _close_under, (getattr(place, "connection", place),))
    timer.daemon = True
    timer.start()
    try:
        return call(place, *args, **kwargs)
    finally:
        timer.cancel()


def _close_under(connection: Any) -> None:
    """Close the socket of a connection that another thread waits for: its wait ends."""
    # The call may have ended, and closed it, a moment ago.
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as held:
        held.shutdown(socket.SHUT_RDWR)
