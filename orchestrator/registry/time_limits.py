"""Time limits of the connections that MLflow opens to a database of its own.

MLflow passes its URI on to SQLAlchemy, which passes the URI's query on to the driver: they travel there.
What the user's URI says stays. SQLite has a limit on waiting for a lock from the start.
"""

import sqlalchemy

__all__ = ["with_time_limits", "without_options"]

_CONNECT_S = 10
_STATEMENT_S = 60
# A dead peer is found by unanswered probes, and by data that it does not acknowledge.
_LIBPQ = {
    "connect_timeout": str(_CONNECT_S),
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "options": f"-c statement_timeout={_STATEMENT_S}s",
}
_MYSQL = {
    "connect_timeout": str(_CONNECT_S),
    "read_timeout": str(_STATEMENT_S),
    "write_timeout": str(_STATEMENT_S),
}
_LIMITS = {"psycopg": _LIBPQ, "psycopg2": _LIBPQ, "pymysql": _MYSQL, "mysqldb": _MYSQL}


def with_time_limits(tracking_uri: str) -> str:
    """The URI of a database with time limits for its driver, where these are known.

    Raises:
        sqlalchemy.exc.ArgumentError: It is no URI of a database.
    """
    url = sqlalchemy.make_url(tracking_uri)
    limits = _LIMITS.get(url.get_driver_name())
    if limits is None:
        return tracking_uri
    return url.set(query={**limits, **url.query}).render_as_string(hide_password=False)


def without_options(limited_uri: str) -> str:
    """The URI without a limit on statements, for a connection pooler that refuses to pass it on."""
    return (
        sqlalchemy.make_url(limited_uri)
        .difference_update_query(["options"])
        .render_as_string(hide_password=False)
    )
