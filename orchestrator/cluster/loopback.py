"""Loopback for a local Ray: nothing of it listens where other machines could reach it.

Ray does so itself on macOS and Windows, and takes the address of the machine's network elsewhere; a loopback
address that it is told it replaces by that one. A cluster that is joined is left as it is.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private import ray_constants

__all__ = ["keep_replica_on_loopback", "ray_on_loopback"]


@contextmanager
def ray_on_loopback() -> Iterator[None]:
    """A Ray that is started in the block listens on loopback, and so do all of its processes."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def keep_replica_on_loopback() -> None:
    """In a replica of Ray Serve on a Ray on loopback, have the port for other replicas be there too.

    Ray Serve opens it on every interface, once the replica's own object is made: to be called from there.
    """
    if not ray.is_initialized():
        return
    host = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(host).is_loopback:
        return
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", host))
