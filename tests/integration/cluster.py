"""A cluster as a plant has it, on several hosts: Ray's nodes, an S3 host and an MLflow host."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.integration.hosts import Network, RayNode, ray_address
from tests.integration.local_services import LocalService

__all__ = ["Cluster"]

S3_PORT, MLFLOW_PORT = 9000, 5000
_LEFT_OUT = ("AWS_", "MLFLOW_", "RAY_", "SHIP_")


class Cluster:
    """All hosts; a ``with`` block starts Ray's head and S3, and in the end leaves nothing of them.

    The command is run on the head, where Ray places nothing else that takes a CPU.

    Args:
        ray_hosts: Names of hosts that may become Ray's nodes, with one CPU each.

    Attributes:
        variables: Variables that a user would export: addresses of Ray, store and MLflow.
    """

    def __init__(self, ray_hosts: Sequence[str]) -> None:
        self._ray_hosts = tuple(ray_hosts)
        self._network = Network(["head", "store", "tracking", *ray_hosts])
        # Short, because it holds sockets.
        self._folder = Path(tempfile.mkdtemp(prefix="ship-", dir="/tmp"))
        self._services: dict[str, LocalService] = {}
        self._nodes: dict[str, RayNode] = {}
        self._num_starts = 0
        self.head, self.store = self._network["head"], self._network["store"]
        self.variables = {
            "RAY_ADDRESS": ray_address(self.head),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "MLFLOW_TRACKING_URI": f"http://{self._network['tracking'].address}:{MLFLOW_PORT}",
        }

    def __enter__(self) -> Self:
        """Start Ray's head and S3."""
        # PostgreSQL runs as another user.
        self._folder.chmod(0o711)
        try:
            self._network.__enter__()
            self.variables |= self._start_service("s3", "store", S3_PORT).wait()
            self._start_ray("head")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End services cleanly, and then all that runs on the hosts."""
        try:
            for service in self._services.values():
                service.tell_to_end()
            for service in self._services.values():
                service.end()
        finally:
            self._network.__exit__()
            for node in self._nodes.values():
                node.wait_for_end()
            shutil.rmtree(self._folder)

    @property
    def nodes(self) -> set[str]:
        """Names of the hosts that are Ray's nodes now, without the head."""
        return set(self._nodes) - {"head"}

    @property
    def spare(self) -> str:
        """Name of a host that is no node now."""
        return next(name for name in self._ray_hosts if name not in self._nodes)

    def address(self, name: str) -> str:
        """Address of a host."""
        return self._network[name].address

    def pids(self, name: str) -> set[int]:
        """Process ids of all that runs on a host."""
        return self._network[name].pids()

    def set_nodes(self, count: int) -> None:
        """Have so many nodes."""
        for name in sorted(self.nodes)[count:]:
            self.lose_node(name)
        spare = [name for name in self._ray_hosts if name not in self._nodes]
        self.add_nodes(*spare[: count - len(self.nodes)])

    def add_nodes(self, *names: str) -> None:
        """Have hosts join as nodes."""
        for name in names:
            self._network[name].join()
        self._start_ray(*names)

    def lose_node(self, name: str) -> None:
        """A host loses its power."""
        node = self._nodes.pop(name)
        self._network[name].lose_power()
        node.wait_for_end()

    def start_tracking(self) -> None:
        """Start MLflow, unless it runs."""
        if "mlflow" not in self._services:
            self._start_service("mlflow", "tracking", MLFLOW_PORT).wait()

    def stop_tracking(self) -> None:
        """Stop MLflow, if it runs."""
        if (service := self._services.pop("mlflow", None)) is not None:
            service.end()

    def set_quota(self, max_bytes: int | None) -> None:
        """Let the store's user keep so much and no more; None for no limit."""
        admin = (
            "radosgw-admin",
            "-c",
            str(self._folder / "s3" / "data" / "ceph.conf"),
            "--name",
            "client.gateway",
        )
        quota = (*admin, "quota", "--quota-scope=user", "--uid=ship")
        if max_bytes is None:
            self.store.run(*quota, "disable")
        else:
            self.store.run(*quota, "set", f"--max-size={max_bytes}")
            self.store.run(*quota, "enable")

    def _start_ray(self, *names: str) -> None:
        """All of them at once."""
        head = None if names == ("head",) else self.head
        environment = clean_environment() | self.variables
        for name in names:
            self._num_starts += 1
            folder = self._folder / f"{name}-{self._num_starts}"
            self._nodes[name] = RayNode(self._network[name], folder, environment, head)
        for name in names:
            self._nodes[name].wait()

    def _start_service(self, name: str, host: str, port: int) -> LocalService:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        where = self._network[host]
        options = ["--host", where.address, "--port", str(port)]
        self._services[name] = LocalService(name, folder, options=options, prefix=where.prefix)
        return self._services[name]


def clean_environment() -> Mapping[str, str]:
    """This process's environment without what leads to other services."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_LEFT_OUT)}
    # No cloud is asked for keys, and no file of the user's.
    return inherited | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}
