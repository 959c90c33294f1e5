"""A database that does not answer ends in an error within a bound."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import sqlalchemy

from orchestrator.registry.session import MlflowSession, RegistryDown
from orchestrator.registry.time_limits import with_time_limits


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_postgresql_has_limits_on_connecting_on_dead_peers_and_on_statements(scheme: str) -> None:
    url = sqlalchemy.make_url(with_time_limits(f"{scheme}://me:p%40ss@host/db?sslmode=require"))
    assert (url.username, url.password, url.host, url.database) == ("me", "p@ss", "host", "db")
    assert url.query["sslmode"] == "require"
    assert url.query["connect_timeout"] == "10"
    assert url.query["tcp_user_timeout"] == "30000"
    assert url.query["keepalives_idle"] == "15"
    assert url.query["ship_read_timeout"] == "60"


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mysql+mysqldb", "mysql"])
def test_mysql_has_limits_on_connecting_reading_and_writing(scheme: str) -> None:
    query = sqlalchemy.make_url(with_time_limits(f"{scheme}://me@host/db")).query
    assert query == {"connect_timeout": "10", "read_timeout": "60", "write_timeout": "60"}


def test_what_the_user_has_set_stays() -> None:
    query = sqlalchemy.make_url(
        with_time_limits("postgresql://host/db?connect_timeout=3&ship_read_timeout=9")
    ).query
    assert (query["connect_timeout"], query["ship_read_timeout"]) == ("3", "9")


@pytest.mark.parametrize("uri", ["sqlite:////tmp/a.db", "mssql+pyodbc://host/db?driver=x"])
def test_other_databases_are_left_alone(uri: str) -> None:
    assert with_time_limits(uri) == uri


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


def welcome_and_fall_silent(server: socket.socket, is_over: threading.Event) -> None:
    """PostgreSQL's side of the first messages, as far as a client needs them to send a query."""
    kept = []
    with suppress(OSError):
        while not is_over.is_set():
            connection, _ = server.accept()
            kept.append(connection)
            connection.recv(4096)
            messages = [(b"R", b"\0\0\0\0"), (b"S", b"client_encoding\0UTF8\0"), (b"Z", b"I")]
            for kind, body in messages:
                connection.sendall(kind + (len(body) + 4).to_bytes(4, "big") + body)
    for connection in kept:
        connection.close()


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A PostgreSQL that lets clients in and answers no query, as one that is paused does."""
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=welcome_and_fall_silent, args=(server, is_over), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        is_over.set()
        server.shutdown(socket.SHUT_RDWR)
    thread.join(30)


def test_a_database_that_falls_silent_after_the_connection_was_made_is_down(mute_port: int) -> None:
    query = "sslmode=disable&gssencmode=disable&ship_read_timeout=0.5"
    began_s = time.monotonic()
    with pytest.raises(RegistryDown) as caught:
        _ = MlflowSession(f"postgresql+psycopg://me:secret@127.0.0.1:{mute_port}/db?{query}").client
    assert time.monotonic() - began_s < 60.0
    assert "secret" not in str(caught.value)
