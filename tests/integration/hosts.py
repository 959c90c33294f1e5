"""Several hosts on one machine: network namespaces on a switch, each with a name and an address of its own.

Hosts share the machine's files and its table of processes, so that a test can see both; what goes from one to
another goes through the switch, where a link can be cut. Needs root and iproute2.
"""

import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import pytest

__all__ = ["Host", "Network", "RayNode", "ray_address", "skip_without_namespaces"]

# iproute2 mounts the files of /etc/netns/NAME over those of /etc for what it runs in namespace NAME.
NAMES_FOLDER = Path("/etc/netns")
RAY_PORT = 6379
# A host that is silent for a quarter of a minute counts as dead, and not, as by default, after more than one.
# Workers get their share of a busy machine.
RAY_SETTINGS = {
    "RAY_worker_niceness": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}
OBJECT_STORE_BYTES = 100_000_000
START_PATIENCE_S = 180.0
END_PATIENCE_S = 30.0


def skip_without_namespaces() -> None:
    """Skip the test, with the reason, where no hosts can be made."""
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            pytest.skip(f"no program {program!r} here (package {package}; deploy/local/install)")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    tried = f"ship{secrets.token_hex(3)}"
    done = subprocess.run(["ip", "netns", "add", tried], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        _ip("netns", "delete", tried)
    else:
        pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")


class Host:
    """One host. It has the loopback interface and ``eth0``.

    Args:
        name: As other hosts know it.
        address: IPv4.
        namespace: Network namespace of the host.
        switch: Namespace with the other end of its link.
    """

    def __init__(self, name: str, address: str, namespace: str, switch: str) -> None:
        self.name, self.address = name, address
        self._namespace, self._switch = namespace, switch

    @property
    def prefix(self) -> list[str]:
        """Runs a program on this host, put before it; the process becomes the program's own."""
        rename = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'
        return [*_enter(self._namespace), "unshare", "--uts", "--", "sh", "-c", rename, self.name]

    def run(self, *command: str) -> str:
        """Run a program to its end; returns what it printed."""
        done = subprocess.run(
            [*self.prefix, *command], capture_output=True, text=True, timeout=START_PATIENCE_S, check=False
        )
        assert done.returncode == 0, f"{command} on {self.name}: {done.stdout}{done.stderr}"
        return done.stdout

    def pids(self) -> set[int]:
        """Process ids of all that runs on it."""
        return set(map(int, _ip("netns", "pids", self._namespace).split()))

    def cut(self) -> None:
        """Pull the plug of the network: nothing goes in or out, and no peer is told."""
        _ip("-n", self._switch, "link", "set", "dev", self.name, "down")

    def join(self) -> None:
        """Put the plug back in."""
        _ip("-n", self._switch, "link", "set", "dev", self.name, "up")

    def lose_power(self) -> None:
        """End all processes at once; the others only notice that the host is silent. It stays cut off."""
        self.cut()
        self.end_all()

    def end_all(self) -> None:
        """Kill all processes of this host, those they start meanwhile too."""
        deadline_s = time.monotonic() + END_PATIENCE_S
        while pids := self.pids():
            assert time.monotonic() < deadline_s, f"processes {pids} of host {self.name} do not end"
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


class Network:
    """Hosts on one switch; a ``with`` block makes them, and leaves nothing of them or their processes.

    This process is on the switch too, and can reach every host. No other part of the machine's own network is
    touched: the switch is in a namespace of its own.

    Args:
        names: Names of the hosts.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # Interfaces have at most 15 characters. No two runs of a test meet.
        self._name = f"ship{secrets.token_hex(3)}"
        self._undo = ExitStack()
        self._subnet = _free_subnet()
        own, *addresses = [str(address) for address in list(self._subnet.hosts())[: len(names) + 1]]
        self._own_address = own
        self.hosts = {
            name: Host(name, address, f"{self._name}-{name}", self._name)
            for name, address in zip(names, addresses, strict=True)
        }

    def __getitem__(self, name: str) -> Host:
        """A host by its name."""
        return self.hosts[name]

    def __enter__(self) -> Self:
        """Make switch and hosts."""
        try:
            self._make()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs on the hosts, and remove them."""
        self._undo.close()

    def _make(self) -> None:
        self._make_namespace(self._name)
        _ip("-n", self._name, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._name, "link", "set", "switch", "up")
        self._plug_in("own", self._name, str(os.getpid()), self._own_address)
        names = "".join(f"{host.address} {host.name}\n" for host in self.hosts.values())
        for host in self.hosts.values():
            namespace = f"{self._name}-{host.name}"
            folder = NAMES_FOLDER / namespace
            self._undo.callback(_remove_names, folder)
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
            self._make_namespace(namespace)
            self._undo.callback(host.end_all)
            _ip("-n", namespace, "link", "set", "lo", "up")
            self._plug_in(host.name, "eth0", namespace, host.address)

    def _make_namespace(self, name: str) -> None:
        _ip("netns", "add", name)
        self._undo.callback(_ip, "netns", "delete", name)

    def _plug_in(self, port: str, interface: str, namespace: str, address: str) -> None:
        """A link from ``port`` of the switch to ``interface`` of a namespace, or of a process's."""
        switch = ("-n", self._name)
        peer = ("peer", "name", interface, "netns", namespace)
        _ip(*switch, "link", "add", "name", port, "type", "veth", *peer)
        _ip(*switch, "link", "set", "dev", port, "master", "switch", "up")
        there = () if namespace.isdigit() else ("-n", namespace)
        _ip(*there, "address", "add", f"{address}/{self._subnet.prefixlen}", "dev", interface)
        _ip(*there, "link", "set", interface, "up")


class RayNode:
    """Ray on one host.

    Args:
        host: Where.
        folder: Short, for what Ray writes: it holds sockets.
        environment: Environment variables of Ray and of all that it starts.
        head: The cluster's head; None makes this one the head, on which nothing is placed that takes a CPU.
    """

    def __init__(
        self, host: Host, folder: Path, environment: Mapping[str, str], head: Host | None = None
    ) -> None:
        self.host = host
        where = ["--head", f"--port={RAY_PORT}"] if head is None else [f"--address={ray_address(head)}"]
        options = {
            "node-ip-address": host.address,
            "num-cpus": 0 if head is None else 1,
            "object-store-memory": OBJECT_STORE_BYTES,
            "temp-dir": folder,
            "include-log-monitor": "false",
        }
        if head is None:
            options["include-dashboard"] = "false"
        folder.mkdir()
        self._log = folder / "start.log"
        command = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--block",
            "--disable-usage-stats",
            *where,
        ]
        command += [f"--{name}={value}" for name, value in options.items()]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*host.prefix, *command],
                env={**environment, **RAY_SETTINGS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> Self:
        """Wait until it is part of the cluster."""
        deadline_s = time.monotonic() + START_PATIENCE_S
        while "Ray runtime started" not in (said := self._log.read_text()):
            assert self._process.poll() is None, f"Ray on {self.host.name} ended: {said}"
            assert time.monotonic() < deadline_s, f"Ray on {self.host.name} is not up: {said}"
            time.sleep(0.1)
        return self

    def wait_for_end(self) -> None:
        """Once its host has lost its power."""
        self._process.wait(END_PATIENCE_S)


def ray_address(head: Host) -> str:
    """``RAY_ADDRESS`` of a cluster."""
    return f"{head.address}:{RAY_PORT}"


def _enter(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def _remove_names(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        # Only if it holds no other program's.
        NAMES_FOLDER.rmdir()


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


def _free_subnet() -> ipaddress.IPv4Network:
    routes = [route["dst"] for route in json.loads(_ip("-j", "-4", "route", "show") or "[]")]
    taken = [ipaddress.IPv4Network(route) for route in routes if route != "default"]
    while True:
        subnet = ipaddress.IPv4Network((10 << 24 | secrets.randbelow(1 << 16) << 8, 24))
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
