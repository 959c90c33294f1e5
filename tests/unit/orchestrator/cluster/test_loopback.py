"""A local Ray's node is on loopback; what joins one that is elsewhere is left alone."""

from ray._private import ray_constants, services
from ray.serve._private import replica

from orchestrator.cluster.loopback import keep_replica_on_loopback, ray_on_loopback


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
