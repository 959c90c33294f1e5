"""A folder as a user has it, with the console command run in it, and a look at the processes below one."""

import contextlib
import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from tests.factories import write_backbone, write_stripes

__all__ = [
    "PATIENCE_S",
    "SHIP",
    "Plant",
    "descendants",
    "is_alive",
    "make_plant",
    "open_ports",
    "wait_until_gone",
]

SHIP = str(Path(sys.executable).parent / "ship")
EPOCHS = 30
# What must happen at some time, on a busy machine too. Nothing waits for as long when it works.
PATIENCE_S = 300.0


class Plant:
    """A folder with a backbone, a manifest and data, and the command run in it.

    Args:
        folder: Folder for all its files.
        prefix: Runs the command, such as on another host.
    """

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.prefix = tuple(prefix)
        self.home = folder / "home"
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("SHIP_", "MLFLOW_"))
        }
        inherited.pop("RAY_ADDRESS", None)
        self.environment = {
            **inherited,
            "SHIP_HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def write_manifest(self, tasks: list[str], **defaults: object) -> Path:
        settings = {
            "epochs": EPOCHS,
            "num_independent": 3,
            "num_attribute": 4,
            # What is tuned is published, and in the shortest time.
            "fallback": False,
            "top_k": 4,
            "learning_rate": 0.01,
            **defaults,
        }
        manifest = {
            "backbone": str(self.folder / "backbone"),
            "workers": 2,
            "defaults": settings,
            "tasks": [{"name": name, "data": name} for name in tasks],
        }
        path = self.folder / "manifest.yaml"
        path.write_text(json.dumps(manifest))  # JSON is YAML
        return path

    def ship(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, SHIP, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def start(self, *arguments: str, output: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, SHIP, *arguments],
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ship_json(self, *arguments: str) -> object:
        done = self.ship(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def make_plant(folder: Path) -> Plant:
    """Two good tasks, and one with a broken picture."""
    write_backbone(folder / "backbone")
    write_stripes(folder / "line-a")
    write_stripes(folder / "line-b", num_classes=3)
    write_stripes(folder / "line-bad")
    picture = next((folder / "line-bad" / "train" / "direction-0").iterdir())
    picture.write_bytes(picture.read_bytes()[:60])
    return Plant(folder)


def descendants(pid: int) -> list[tuple[int, str]]:
    """Process id and command line of all processes below one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found: list[tuple[int, str]] = []
    waiting = list(parents.get(pid, ()))
    while waiting:
        child = waiting.pop()
        waiting += parents.get(child, ())
        with contextlib.suppress(OSError):
            found.append((child, (Path("/proc") / str(child) / "cmdline").read_text().replace("\0", " ")))
    return found


def open_ports(pid: int) -> dict[str, str]:
    """Addresses beyond loopback at which a process, or one below it, listens, and its command line."""
    found = {}
    for member in [pid, *(child for child, _ in descendants(pid))]:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(member)
            for socket in process.net_connections(kind="tcp"):
                host = ipaddress.ip_address(socket.laddr.ip or "0.0.0.0") if socket.laddr else None
                host = getattr(host, "ipv4_mapped", None) or host
                if socket.status == psutil.CONN_LISTEN and host is not None and not host.is_loopback:
                    found[f"{host}:{socket.laddr.port}"] = " ".join(process.cmdline())[:100]
    return found


def wait_until_gone(pids: list[int], seconds: float = PATIENCE_S) -> list[int]:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        pids = [pid for pid in pids if is_alive(pid)]
        if not pids:
            break
        time.sleep(0.2)
    return pids


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
