"""A database that does not answer ends in an error within a bound."""

import socket
import time
from collections.abc import Iterator

import pytest
import sqlalchemy

from orchestrator.registry.session import MlflowSession, RegistryDown
from orchestrator.registry.time_limits import with_time_limits, without_options


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_postgresql_has_limits_on_connecting_on_dead_peers_and_on_statements(scheme: str) -> None:
    url = sqlalchemy.make_url(with_time_limits(f"{scheme}://me:p%40ss@host/db?sslmode=require"))
    assert (url.username, url.password, url.host, url.database) == ("me", "p@ss", "host", "db")
    assert url.query["sslmode"] == "require"
    assert url.query["connect_timeout"] == "10"
    assert url.query["tcp_user_timeout"] == "30000"
    assert url.query["keepalives_idle"] == "15"
    assert url.query["options"] == "-c statement_timeout=60s"


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mysql+mysqldb", "mysql"])
def test_mysql_has_limits_on_connecting_reading_and_writing(scheme: str) -> None:
    query = sqlalchemy.make_url(with_time_limits(f"{scheme}://me@host/db")).query
    assert query == {"connect_timeout": "10", "read_timeout": "60", "write_timeout": "60"}


def test_what_the_user_has_set_stays() -> None:
    query = sqlalchemy.make_url(
        with_time_limits("postgresql://host/db?connect_timeout=3&options=-c%20a%3Db")
    ).query
    assert (query["connect_timeout"], query["options"]) == ("3", "-c a=b")


@pytest.mark.parametrize("uri", ["sqlite:////tmp/a.db", "mssql+pyodbc://host/db?driver=x"])
def test_other_databases_are_left_alone(uri: str) -> None:
    assert with_time_limits(uri) == uri


def test_a_pooler_that_passes_no_options_on_gets_none() -> None:
    query = sqlalchemy.make_url(without_options(with_time_limits("postgresql://host/db"))).query
    assert "options" not in query
    assert query["connect_timeout"] == "10"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_database_that_takes_the_connection_and_never_answers_is_down(silent_port: int) -> None:
    uri = f"postgresql+psycopg://me:secret@127.0.0.1:{silent_port}/db?connect_timeout=2"
    began_s = time.monotonic()
    with pytest.raises(RegistryDown) as caught:
        _ = MlflowSession(uri).client
    assert time.monotonic() - began_s < 60.0
    assert "secret" not in str(caught.value)
