"""A port that cannot be had is told before anything starts."""

import socket

import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.launch import address
from orchestrator.serve.launch.address import check_port_is_free, choose_port, client_url


def test_a_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ServeError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*--port"):
            check_port_is_free("127.0.0.1", port)
    check_port_is_free("127.0.0.1", port)


def test_a_chosen_port_is_free_and_is_given_to_no_connection():
    port = choose_port("127.0.0.1")
    check_port_is_free("127.0.0.1", port)
    assert 20_000 <= port < 30_000


def test_ports_that_are_taken_or_were_chosen_are_passed_over(monkeypatch: pytest.MonkeyPatch):
    def check(_: str, port: int) -> None:
        if port == 20_001:
            raise ServeError("it is taken")

    monkeypatch.setattr(address, "check_port_is_free", check)
    monkeypatch.setattr(address, "_CHOICE", [20_001, 20_002])
    assert choose_port("127.0.0.1") == 20_002
    # None is left: the system gives one.
    assert choose_port("127.0.0.1", others=[20_002]) not in {20_001, 20_002}


@pytest.mark.parametrize(("host", "port"), [("203.0.113.9", 8000), ("127.0.0.1", 70000)])
def test_an_address_that_is_not_ours_is_refused(host: str, port: int):
    with pytest.raises(ServeError, match="cannot listen"):
        check_port_is_free(host, port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("plant.example", "http://plant.example:80"),
    ],
)
def test_clients_are_given_an_address_that_they_can_reach(host: str, url: str):
    assert client_url(host, 80) == url
