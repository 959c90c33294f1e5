"""A local Ray's node is on loopback; what joins one that is elsewhere is left alone."""

import socket

import pytest
from ray._private import ray_constants, services
from ray.serve._private import replica

from orchestrator.cluster.loopback import is_on_loopback, keep_replica_on_loopback, ray_on_loopback


def test_a_ray_that_is_started_in_the_block_is_on_loopback() -> None:
    before = ray_constants.ENABLE_RAY_CLUSTER
    with ray_on_loopback():
        # What Ray gives to each process that it starts, and each of them listens there.
        assert services.get_node_ip_address() == "127.0.0.1"
    assert ray_constants.ENABLE_RAY_CLUSTER is before


def test_without_ray_nothing_is_changed() -> None:
    before = replica.add_port_to_grpc_server
    keep_replica_on_loopback()
    assert replica.add_port_to_grpc_server is before


def refuse(place: tuple[str, int], timeout: float) -> socket.socket:
    raise ConnectionRefusedError(f"{place}")


def accept(place: tuple[str, int], timeout: float) -> socket.socket:
    assert place == ("10.0.0.7", 6379), "where Ray would look for it"
    return socket.socket()


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "localhost:6379", "[::1]:6379"])
def test_a_ray_is_on_loopback_if_the_network_does_not_reach_it(address: str) -> None:
    assert is_on_loopback(address, lambda: "10.0.0.7", refuse)
    assert not is_on_loopback(address, lambda: "10.0.0.7", accept)
    assert is_on_loopback(address, lambda: "127.0.0.1", accept), "a machine without a network"


@pytest.mark.parametrize(
    "address", ["auto", "local", "ray-head:6379", "10.0.0.8:6379", "ray://127.0.0.1:10001"]
)
def test_any_other_address_is_left_as_it_is(address: str) -> None:
    assert not is_on_loopback(address, lambda: "10.0.0.7", refuse)
