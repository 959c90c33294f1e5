"""A port that cannot be had is told before anything starts."""

import socket

import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.launch.address import check_port_is_free, choose_port, client_url


def test_a_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ServeError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*--port"):
            check_port_is_free("127.0.0.1", port)
    check_port_is_free("127.0.0.1", port)


def test_a_chosen_port_is_free():
    check_port_is_free("127.0.0.1", choose_port("127.0.0.1"))


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
