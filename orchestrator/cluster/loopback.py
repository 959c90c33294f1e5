"""Loopback for a local Ray: nothing of it listens where other machines could reach it.

Ray does so itself on macOS and Windows, and takes the address of the machine's network elsewhere; a loopback
address that it is told it replaces by that one, also to join a Ray that listens on loopback alone.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._private import ray_constants
from ray._private.services import get_node_ip_address

__all__ = ["is_on_loopback", "keep_replica_on_loopback", "ray_on_loopback"]

_PATIENCE_S = 2.0


@contextmanager
def ray_on_loopback() -> Iterator[None]:
    """A Ray that is started in the block is on loopback, as are all its processes; one is joined there."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def is_on_loopback(
    address: str,
    find_network: Callable[[], str] = get_node_ip_address,
    connect: Callable[..., socket.socket] = socket.create_connection,
) -> bool:
    """Whether the Ray at ``HOST:PORT`` is reached on loopback alone.

    One that `ray start` has started, and that is named by a loopback address, listens on the network's, too.

    Args:
        address: Address of a Ray.
        find_network: Gives the machine's address in its network.
        connect: Makes a connection.
    """
    host, _, port = address.rpartition(":")
    if not (host == "localhost" or _is_loopback(host)):
        return False
    network = find_network()
    if _is_loopback(network):
        return True
    try:
        connect((network, int(port)), timeout=_PATIENCE_S).close()
    except OSError:
        return True
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def keep_replica_on_loopback() -> None:
    """In a replica of Ray Serve on a Ray on loopback, have the port for other replicas be there too.

    Ray Serve opens it on every interface, once the replica's own object is made: to be called from there.
    """
    if not ray.is_initialized():
        return
    host = ray.util.get_node_ip_address()
    if not _is_loopback(host):
        return
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", host))
